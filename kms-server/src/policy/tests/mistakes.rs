//! Every mistake in a file of bindings has a place, a reason and a remedy.

use super::*;
use crate::policy::check as check_files;

const WHO: &str = r#"principals = ["spiffe://example.com/billing"]"#;
const GOOD: &str = r#"[[binding]]
id = "b"
roles = ["encrypter", "auditor"]
principals = ["spiffe://example.com/billing"]
tenants = ["acme"]
keys = ["k"]
"#;

fn mistake(text: &str) -> Mistake {
    match Policy::load(text, "bindings.toml") {
        Err(PolicyError::Bindings(mistake)) => *mistake,
        other => panic!("{other:?}\n{text}"),
    }
}

#[track_caller]
fn check(text: &str, shown: &str) {
    assert_eq!(mistake(text).to_string(), format!("bindings.toml:{shown}"));
}

/// The good file with one line changed, from its beginning.
fn with(line: &str, changed: &str) -> String {
    assert_eq!(GOOD.matches(line).count(), 1, "{line}");
    assert!(Policy::load(GOOD, "").is_ok());
    GOOD.replace(line, changed)
}

#[test]
fn what_toml_refuses_is_told_with_its_place() {
    check(
        &with("id = \"b\"", "id = \"b"),
        r#"2:8: not a file of bindings: invalid basic string, expected `"`; a file of bindings has [[binding]] and [[group]] tables, see its reference"#,
    );
    check(
        &with("roles", "rolls"),
        r#"3:1: not a file of bindings: unknown field `rolls`, expected one of `id`, `roles`, `principals`, `groups`, `tenants`, `keys`, `indexes`, `networks`, `expires`, `strength`, `context`, `fan_out`; did you mean "roles"?"#,
    );
    check(
        &with("id = \"b\"\n", ""),
        r#"1:1: not a file of bindings: missing field `id`; a file of bindings has [[binding]] and [[group]] tables, see its reference"#,
    );
    check(
        &with("tenants = [\"acme\"]", "tenants = \"acme\""),
        r#"5:11: not a file of bindings: invalid type: string "acme", expected a sequence; a file of bindings has [[binding]] and [[group]] tables, see its reference"#,
    );
    check(
        "[[bindings]]",
        r#"1:3: not a file of bindings: unknown field `bindings`, expected `binding` or `group`; did you mean "binding"?"#,
    );
    check(
        "[binding]\nid = \"b\"",
        r#"1:1: not a file of bindings: invalid type: map, expected a sequence; a file of bindings has [[binding]] and [[group]] tables, see its reference"#,
    );
}

#[test]
fn ids_and_group_names_are_names_and_unique() {
    check(
        &with("\"b\"", "\"\""),
        r#"2:6: bad binding id "": must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit; choose another"#,
    );
    check(
        &with("\"b\"", "\"b c\""),
        r#"2:6: bad binding id "b c": must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit; choose another"#,
    );
    check(
        &with("\"b\"", "\"default\""),
        r#"2:6: binding id "default" is taken: the audit log uses it for decisions that no binding made; choose another id"#,
    );
    check(
        &with("\"b\"", "\"self\""),
        r#"2:6: binding id "self" is taken: the audit log uses it for decisions that no binding made; choose another id"#,
    );
    check(
        &format!("{GOOD}{GOOD}"),
        r#"8:6: binding id "b" is there twice: it stands in line 2 already; rename or remove one of the two"#,
    );
    let group = "[[group]]\nname = \"g\"\nmembers = [\"spiffe://example.com/a\"]\n";
    check(
        &format!("{group}{group}"),
        r#"5:8: group name "g" is there twice: it stands in line 2 already; rename or remove one of the two"#,
    );
    check(
        &group.replace("\"g\"", "\"*\""),
        r#"2:8: bad group name "*": must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit; choose another"#,
    );
}

#[test]
fn roles_that_do_not_exist_or_give_nothing_are_refused() {
    check(
        &with("\"encrypter\", \"auditor\"", "\"encryptor\""),
        r#"3:10: binding "b": unknown role "encryptor": the roles are encrypter, decrypter, reencrypter, eraser, key-admin, tenant-admin, auditor, operator, staff, approver; did you mean "encrypter"?"#,
    );
    check(
        &with("\"encrypter\", \"auditor\"", "\"owner\""),
        r#"3:10: binding "b": unknown role "owner": the roles are encrypter, decrypter, reencrypter, eraser, key-admin, tenant-admin, auditor, operator, staff, approver; choose one of them"#,
    );
    check(
        &with("keys = [\"k\"]\n", ""),
        r#"3:10: binding "b": role "encrypter" gives nothing here: it acts on keys and indexes, and the binding covers none; write keys = [...] or indexes = [...], or remove the role"#,
    );
    check(
        &with("\"auditor\"", "\"operator\""),
        r#"3:23: binding "b": role "operator" gives nothing here: it acts on the cluster, and the binding covers none; write tenants = ["*"], or remove the role"#,
    );
    check(
        &with("\"encrypter\", \"auditor\"", "\"tenant-admin\""),
        r#"6:8: binding "b": `keys` limits nothing here: none of the roles acts on keys; remove `keys`, or give a role that acts on keys"#,
    );
    check(
        &with("\"encrypter\"", "\"reencrypter\"").replace("keys", "indexes"),
        r#"3:10: binding "b": role "reencrypter" gives nothing here: it acts on keys, and the binding covers none; write keys = [...], or remove the role"#,
    );
    check(
        &format!("{}indexes = [\"i\"]", with("\"encrypter\", ", "")),
        r#"7:11: binding "b": `indexes` limits nothing here: none of the roles acts on indexes; remove `indexes`, or give a role that acts on indexes"#,
    );
}

#[test]
fn a_binding_says_who_it_is_for() {
    check(
        &with(&format!("{WHO}\n"), ""),
        r#"1:1: binding "b": neither `principals` nor `groups`: a binding says who it is for; add principals = ["spiffe://..."] or groups = ["..."]"#,
    );
    check(
        &with(WHO, "principals = []"),
        r#"4:14: binding "b": `principals` is empty: an empty list can be read as all or as none; list at least one entry, or remove the table"#,
    );
    check(
        &with("spiffe://example.com/billing", "spiffe://example.com/"),
        r#"4:15: binding "b": bad principal "spiffe://example.com/": a path must follow the trust domain: without it the name is an authority's; write the SPIFFE ID of the workload, as spiffe://example.com/billing"#,
    );
    check(
        &with("spiffe://example.com/billing", "CN=billing"),
        r#"4:15: binding "b": bad principal "CN=billing": a SPIFFE ID begins with "spiffe://", in lower case; write the SPIFFE ID of the workload, as spiffe://example.com/billing"#,
    );
    check(
        &with(WHO, "groups = [\"servces\"]"),
        r#"4:11: binding "b": unknown group "servces": no [[group]] in this file has that name; add the group, or correct the name"#,
    );
    let group = "[[group]]\nname = \"services\"\nmembers = [\"spiffe://example.com/a\"]\n";
    check(
        &format!("{}{group}", with(WHO, "groups = [\"servces\"]")),
        r#"4:11: binding "b": unknown group "servces": no [[group]] in this file has that name; did you mean "services"?"#,
    );
    check(
        "[[group]]\nname = \"g\"\nmembers = []",
        r#"3:11: group "g": `members` is empty: an empty list can be read as all or as none; list at least one entry, or remove the table"#,
    );
    check(
        "[[group]]\nname = \"g\"\nmembers = [\"spiffe://example.com\"]",
        r#"3:12: group "g": bad principal "spiffe://example.com": a path must follow the trust domain: without it the name is an authority's; write the SPIFFE ID of the workload, as spiffe://example.com/billing"#,
    );
}

#[test]
fn lists_have_entries_of_their_kind_and_each_once() {
    check(
        &with("roles = [\"encrypter\", \"auditor\"]", "roles = []"),
        r#"3:9: binding "b": `roles` is empty: an empty list can be read as all or as none; list at least one entry, or remove the table"#,
    );
    check(
        &with("\"acme\"", ""),
        r#"5:11: binding "b": `tenants` is empty: an empty list can be read as all or as none; list at least one entry, or remove the table"#,
    );
    check(
        &with("\"acme\"", "\"ac*\""),
        r#"5:12: binding "b": bad tenant "ac*": a tenant's name must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit; write the name of one tenant, or "*"; tenants have no prefixes"#,
    );
    check(
        &with("\"acme\"", "\"acme/keys/k\""),
        r#"5:12: binding "b": bad tenant "acme/keys/k": a tenant's name must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit; write the name of one tenant, or "*"; tenants have no prefixes"#,
    );
    check(
        &with("\"acme\"", "\"acme\", \"globex\", \"acme\""),
        r#"5:30: binding "b": `tenants` has "acme" twice: the second one changes nothing, so that another was meant; correct or remove it"#,
    );
    check(
        &with("\"acme\"", "\"acme\", \"*\""),
        r#"5:20: binding "b": `tenants` has "*" beside other entries: "*" covers them all, so that the others limit nothing; keep either "*" or the others"#,
    );
    check(
        &with("\"k\"", ""),
        r#"6:8: binding "b": `keys` is empty: an empty list can be read as all or as none; list at least one entry, or remove the table"#,
    );
    check(
        &with("\"k\"", "\"*k\""),
        r#"6:9: binding "b": bad name "*k": a name must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit; write a name, "prefix*", or "*""#,
    );
    check(
        &with("\"k\"", "\"**\""),
        r#"6:9: binding "b": bad name "**": a name must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit; write a name, "prefix*", or "*""#,
    );
    check(
        &with("\"k\"", "\"*\", \"k\""),
        r#"6:9: binding "b": `keys` has "*" beside other entries: "*" covers them all, so that the others limit nothing; keep either "*" or the others"#,
    );
    check(
        &format!("{GOOD}indexes = [\"a b\"]"),
        r#"7:12: binding "b": bad name "a b": a name must be 1 to 64 of A-Z a-z 0-9 . _ ~ - and begin with a letter or a digit; write a name, "prefix*", or "*""#,
    );
}

#[test]
fn networks_are_networks() {
    check(
        &format!("{GOOD}networks = []"),
        r#"7:12: binding "b": `networks` is empty: an empty list can be read as all or as none; list at least one entry, or remove the table"#,
    );
    check(
        &format!("{GOOD}networks = [\"10.0.0.1\"]"),
        r#"7:13: binding "b": bad network "10.0.0.1": a network is an address and a prefix length, as 10.0.0.0/8 or 2001:db8::/32; correct the address or the prefix length"#,
    );
    check(
        &format!("{GOOD}networks = [\"10.0.0.1/8\"]"),
        r#"7:13: binding "b": bad network "10.0.0.1/8": bits of the address are set behind its prefix; the network of that length is 10.0.0.0/8; correct the address or the prefix length"#,
    );
    check(
        &format!("{GOOD}networks = [\"10.0.0.0/40\"]"),
        r#"7:13: binding "b": bad network "10.0.0.0/40": the prefix length of this address is at most 32; correct the address or the prefix length"#,
    );
    check(
        &format!("{GOOD}networks = [\"::ffff:10.0.0.0/104\"]"),
        r#"7:13: binding "b": bad network "::ffff:10.0.0.0/104": an IPv4 network is written as such, not inside ::ffff:0:0/96; correct the address or the prefix length"#,
    );
}

#[test]
fn expires_is_a_moment() {
    check(
        &format!("{GOOD}expires = \"2027-01-01T00:00:00Z\""),
        r#"7:11: binding "b": `expires` is no date-time: it is a date-time of TOML; write it as 2027-01-01T00:00:00Z, without quotes"#,
    );
    check(
        &format!("{GOOD}expires = 2027-01-01T00:00:00"),
        r#"7:11: binding "b": `expires` is incomplete: without date, time and offset from UTC it is no moment; write it as 2027-01-01T00:00:00Z, without quotes"#,
    );
    check(
        &format!("{GOOD}expires = 2027-01-01"),
        r#"7:11: binding "b": `expires` is incomplete: without date, time and offset from UTC it is no moment; write it as 2027-01-01T00:00:00Z, without quotes"#,
    );
    check(
        &format!("{GOOD}expires = 1798761600"),
        r#"7:11: binding "b": `expires` is no date-time: it is a date-time of TOML; write it as 2027-01-01T00:00:00Z, without quotes"#,
    );
    check(
        &format!("{GOOD}expires = 2027-02-30T00:00:00Z"),
        r#"7:11: not a file of bindings: invalid date, expected day between 01 and 28; a file of bindings has [[binding]] and [[group]] tables, see its reference"#,
    );
}

#[test]
fn a_mistake_does_not_repeat_a_whole_file() {
    let long = "x".repeat(1_000_000);
    for text in [with("\"b\"", &format!("\"{long}\"")), with("[\"acme\"]", &format!("\"{long}\""))] {
        assert!(mistake(&text).to_string().len() < 1_000);
    }
}

#[test]
fn everything_has_a_bound() {
    // As many as allowed are taken, so that it is the bound that refuses one more.
    let refused = |text: &dyn Fn(usize) -> String, max: usize| {
        assert!(Policy::load(&text(max), "bindings.toml").is_ok());
        let Mistake { what, why, .. } = mistake(&text(max + 1));
        format!("{what}: {why}")
    };
    let numbered = |n: usize, text: &str| -> String { (0..n).map(|i| text.replace('#', &i.to_string())).collect() };
    let list = |n, entry: &str| numbered(n, entry).trim_end_matches(',').to_owned();

    let of = |n| with("\"acme\"", &list(n, "\"t#\","));
    assert_eq!(
        refused(&of, bindings::LIST_ENTRIES_MAX),
        "binding \"b\": `tenants` has 1001 entries: a list has at most 1000"
    );
    let of = |n| {
        let members = list(n, "\"spiffe://a/#\",");
        format!("[[group]]\nname = \"g\"\nmembers = [{members}]\n")
    };
    assert_eq!(
        refused(&of, bindings::MEMBERS_MAX),
        "group \"g\": `members` has 10001 entries: a list has at most 10000"
    );
    let of = |n| numbered(n, "[[group]]\nname = \"g#\"\nmembers = [\"spiffe://a/b\"]\n");
    assert_eq!(refused(&of, bindings::GROUPS_MAX), "1001 groups: there are at most 1000");
    let of = |n| numbered(n, &GOOD.replace("\"b\"", "\"b#\""));
    assert_eq!(refused(&of, bindings::BINDINGS_MAX), "10001 bindings: there are at most 10000");
    let of = |n: usize| {
        let of_principals = |(id, n)| {
            let who = format!("principals = [{}]", list(n, "\"spiffe://a/#\","));
            with("\"b\"", &format!("\"b{id}\"")).replace(WHO, &who)
        };
        let max = bindings::LIST_ENTRIES_MAX;
        let full = (0..n / max).map(|id| (id, max));
        let rest = (!n.is_multiple_of(max)).then_some((n, n % max));
        full.chain(rest).map(of_principals).collect()
    };
    assert_eq!(
        refused(&of, bindings::GRANTS_MAX),
        "20001 principals and groups in all bindings together: there are at most 20000"
    );
    let of = |n: usize| format!("#{}", " ".repeat(n - 1));
    assert_eq!(
        refused(&of, bindings::BINDINGS_FILE_BYTES_MAX),
        "the file has 4194305 bytes: a file of bindings has at most 4194304"
    );
}

#[test]
fn the_mistakes_of_all_bindings_and_groups_are_told_and_not_only_the_first() {
    let text = r#"
[[binding]]
id = "a"
rolls = ["encrypter"]

[[binding]]
id = "b"
roles = ["encryptor"]
principals = ["spiffe://example.com/billing"]
tenants = ["acme"]
keys = ["*"]

[[binding]]
id = "c"
roles = ["auditor"]
groups = ["peple"]
tenants = ["acme"]

[[group]]
name = "people"
members = ["alice"]

[[bindings]]
id = "d"
"#;
    let mistakes = check_files(&[("bindings.toml", text)], &[]);
    let told: Vec<String> = mistakes.iter().map(Mistake::to_string).collect();
    let places: Vec<usize> = mistakes.iter().filter_map(|mistake| mistake.place).map(|(line, _)| line).collect();
    assert_eq!(places, [4, 8, 16, 21, 23], "{told:#?}");
    for (mistake, expected) in
        told.iter().zip(["`rolls`", "\"encrypter\"?", "\"people\"?", "bad principal", "\"binding\"?"])
    {
        assert!(mistake.contains(expected), "{mistake}");
    }
    assert_eq!(Policy::load(text, "bindings.toml").unwrap_err().to_string(), told[0]);
    assert!(check_files(&[("bindings.toml", GOOD)], &[]).is_empty());
}

#[test]
fn the_slips_of_syntax_are_told_and_not_only_the_first() {
    let mistakes =
        check_files(&[("bindings.toml", "[[binding]]\nid = \nroles = [\"a\"]\n[[group]\nname = \"x\n")], &[]);
    assert!(mistakes.len() >= 2, "{mistakes:#?}");
    assert_eq!(mistakes[0].place.map(|(line, _)| line), Some(2), "{mistakes:#?}");
}
