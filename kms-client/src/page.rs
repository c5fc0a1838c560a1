//! Lists come in pages; a page's token asks for the next.

use std::future::Future;

use crate::Error;

/// One page of a list.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Page<T> {
    /// What is on it, in the list's order.
    pub items: Vec<T>,
    /// Asks for the next page. `None`: this was the last.
    pub next: Option<PageToken>,
}

impl<T> Page<T> {
    pub(crate) fn new(items: Vec<T>, next_page_token: String) -> Self {
        Self { items, next: (!next_page_token.is_empty()).then_some(PageToken(next_page_token)) }
    }
}

/// Where a list goes on. Opaque, and good for the list that gave it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PageToken(String);

impl PageToken {
    /// Returns the token as text, to be kept for later.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// Takes a token as it was kept.
impl From<String> for PageToken {
    fn from(token: String) -> Self {
        Self(token)
    }
}

/// Which page of a list is asked for.
///
/// ```
/// use kms_client::PageRequest;
///
/// let second = PageRequest::first().size(50).after("a token".to_owned().into());
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct PageRequest {
    size: Option<u32>,
    token: Option<PageToken>,
}

impl PageRequest {
    /// Asks for the first page, of the server's size.
    pub fn first() -> Self {
        Self::default()
    }

    /// Sets the most items of the page. The server says what is too many.
    pub fn size(mut self, items_max: u32) -> Self {
        self.size = Some(items_max);
        self
    }

    /// Asks for the page that the token stands for.
    pub fn after(mut self, token: PageToken) -> Self {
        self.token = Some(token);
        self
    }

    pub(crate) fn wire_size(&self) -> i32 {
        self.size.map_or(0, |size| size.try_into().unwrap_or(i32::MAX))
    }

    pub(crate) fn wire_token(self) -> String {
        self.token.map(|token| token.0).unwrap_or_default()
    }
}

/// Asks for pages until there are `items_max` items or no more, beginning at a token. The page that it returns is all
/// of them, and its `next` goes on exactly after the last.
pub(crate) async fn collect<T, F>(
    items_max: usize,
    mut next: Option<PageToken>,
    mut fetch: impl FnMut(PageRequest) -> F,
) -> Result<Page<T>, Error>
where
    F: Future<Output = Result<Page<T>, Error>>,
{
    let mut items = Vec::new();
    while items.len() < items_max {
        let size = (items_max - items.len()).min(PAGE_ITEMS_MAX);
        let asked = next.take();
        let page = fetch(PageRequest { size: Some(size as u32), token: asked.clone() }).await?;
        if page.items.len() > size {
            return Err(Error::malformed("a page of the size that was asked for"));
        }
        items.extend(page.items);
        next = page.next;
        // Else a list that never ends would be asked for for ever.
        if next.is_some() && next == asked {
            return Err(Error::malformed("a new page token"));
        }
        if next.is_none() {
            break;
        }
    }
    Ok(Page { items, next })
}

/// The largest page that the service gives.
const PAGE_ITEMS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    /// Serves the numbers below `count`; the token is the next number.
    async fn numbers(count: usize, request: PageRequest) -> Result<Page<usize>, Error> {
        let size = request.wire_size() as usize;
        let first = request.wire_token().parse().unwrap_or(0);
        let end = count.min(first + size);
        Ok(Page::new((first..end).collect(), if end < count { end.to_string() } else { String::new() }))
    }

    #[tokio::test]
    async fn collect_goes_to_the_end_of_the_list() {
        let page = collect(10_000, None, |request| numbers(2_500, request)).await.unwrap();
        assert_eq!((page.items, page.next), ((0..2_500).collect(), None));
        let empty = collect(10_000, None, |request| numbers(0, request)).await.unwrap();
        assert!(empty.items.is_empty() && empty.next.is_none());
    }

    #[tokio::test]
    async fn collect_stops_at_its_bound_and_can_go_on_from_there() {
        let page = collect(1_500, None, |request| numbers(2_500, request)).await.unwrap();
        assert_eq!(page.items.len(), 1_500);
        let rest = collect(1_500, page.next, |request| numbers(2_500, request)).await.unwrap();
        assert_eq!((rest.items, rest.next), ((1_500..2_500).collect(), None));
    }

    #[tokio::test]
    async fn a_list_that_does_not_move_on_is_an_error() {
        let stuck = |_| async { Ok(Page::<usize>::new(Vec::new(), "again".to_owned())) };
        assert_eq!(collect(10, None, stuck).await.unwrap_err().kind(), ErrorKind::Internal);
    }

    #[tokio::test]
    async fn a_page_larger_than_asked_for_is_an_error() {
        let large = |_| async { Ok(Page::new(vec![0; 11], String::new())) };
        assert_eq!(collect(10, None, large).await.unwrap_err().kind(), ErrorKind::Internal);
    }
}
