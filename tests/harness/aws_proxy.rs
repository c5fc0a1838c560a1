//! A way to moto on which everything goes wrong that can: HTTP/1.1, plain, on loopback, a request for each connection.
//!
//! It also mends what moto does otherwise than AWS, so that the backend is held to AWS and not to moto: the states of
//! keys ([`AwsKeys`]), the code for a ciphertext of another key, and changes one at a time.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinHandle, JoinSet};

use crate::AwsKeys;

/// What goes wrong on the way.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Fault {
    /// Nothing.
    #[default]
    None,
    /// HTTP 500.
    ServerError,
    /// ThrottlingException.
    Throttling,
    /// The answer comes after half a minute.
    Slow,
    /// The connection is accepted, and nothing ever comes.
    HalfOpen,
    /// The connection is reset.
    Reset,
    /// Half of the answer comes.
    Truncated,
    /// Decrypt answers well, with 32 other bytes.
    WrongPlaintext,
    /// UnrecognizedClientException.
    RefusedCredentials,
    /// AccessDeniedException.
    AccessDenied,
}

impl Fault {
    /// All but none.
    pub const ALL: [Fault; 9] = [
        Fault::ServerError,
        Fault::Throttling,
        Fault::Slow,
        Fault::HalfOpen,
        Fault::Reset,
        Fault::Truncated,
        Fault::WrongPlaintext,
        Fault::RefusedCredentials,
        Fault::AccessDenied,
    ];
}

/// A call that came by.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct AwsCall {
    /// `Decrypt`, `AssumeRole`.
    pub operation: String,
    /// Who signed it.
    pub access_key: String,
}

/// A way to moto. It ends when it is dropped.
pub struct AwsProxy {
    address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    moto: SocketAddr,
    keys: AwsKeys,
    fault: Mutex<Fault>,
    calls: Mutex<Vec<AwsCall>>,
}

impl AwsProxy {
    pub(crate) async fn start(moto: SocketAddr, keys: AwsKeys) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shared = Arc::new(Shared { moto, keys, fault: Mutex::default(), calls: Mutex::default() });
        let ours = Arc::clone(&shared);
        let task = tokio::spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let shared = Arc::clone(&ours);
                // Whoever hangs up in the middle is the fault's business.
                connections.spawn(async move { drop(shared.serve(stream).await) });
            }
        });
        Ok(Self { address, shared, task })
    }

    /// Returns its address, as `backend.aws_endpoint_url` has it.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Lets something go wrong from now on.
    pub fn set(&self, fault: Fault) {
        *self.shared.fault.lock().unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Does something in AWS as its administrator would, with whatever goes wrong on this way.
    pub async fn ask(&self, operation: &str, request: &Value) -> Result<Value> {
        let mut message = Message::of(200, request);
        message.line = "POST / HTTP/1.1".to_owned();
        for (name, value) in [
            ("host", "localhost"),
            ("x-amz-target", &*format!("TrentService.{operation}")),
            ("authorization", "AWS4-HMAC-SHA256 Credential=ADMINISTRATOR/20260101/eu-central-1/kms/aws4_request"),
        ] {
            message.headers.push((name.to_owned(), value.to_owned()));
        }
        let answer = crate::patiently(operation, async {
            let mut stream = TcpStream::connect(self.address).await?;
            stream.write_all(&message.to_bytes()).await?;
            Message::read(&mut stream).await
        });
        let answer = answer.await??;
        let body = String::from_utf8_lossy(&answer.body).into_owned();
        ensure!(answer.status() == 200, "{operation}: {body}");
        Ok(if body.is_empty() { Value::Null } else { serde_json::from_str(&body)? })
    }

    /// Returns the calls that came by.
    pub fn calls(&self) -> Vec<AwsCall> {
        self.shared.calls.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for AwsProxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Shared {
    async fn serve(&self, mut stream: TcpStream) -> Result<()> {
        let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        match fault {
            Fault::HalfOpen => {
                // Held, until whoever waits gives up or the way ends.
                std::future::pending::<()>().await;
            }
            Fault::Reset => {
                // Closed with bytes that nobody read: the kernel answers with a reset.
                stream.readable().await?;
                return Ok(());
            }
            _ => {}
        }
        let request = Message::read(&mut stream).await?;
        let operation = request.operation();
        self.calls
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(AwsCall { operation: operation.clone(), access_key: request.access_key() });
        let answer = match fault {
            Fault::ServerError => refusal(500, "InternalFailure", "we are sorry"),
            Fault::Throttling => refusal(400, "ThrottlingException", "Rate exceeded"),
            Fault::RefusedCredentials => {
                refusal(400, "UnrecognizedClientException", "The security token included in the request is invalid.")
            }
            Fault::AccessDenied => {
                refusal(400, "AccessDeniedException", &format!("User is not authorized to perform: kms:{operation}"))
            }
            Fault::Slow => {
                drop(tokio::time::timeout(SLOW, std::future::pending::<()>()).await);
                self.answer(&operation, &request).await?
            }
            Fault::None | Fault::HalfOpen | Fault::Reset | Fault::Truncated => {
                self.answer(&operation, &request).await?
            }
            Fault::WrongPlaintext => {
                let mut answer = self.answer(&operation, &request).await?;
                if let Some(mut body) = answer.json().filter(|body| body["Plaintext"].is_string()) {
                    body["Plaintext"] = json!(STANDARD.encode([7; 32]));
                    answer = Message::of(200, &body);
                }
                answer
            }
        };
        let mut bytes = answer.to_bytes();
        if fault == Fault::Truncated {
            bytes.truncate(bytes.len() - answer.body.len().div_ceil(2));
        }
        stream.write_all(&bytes).await?;
        stream.shutdown().await?;
        Ok(())
    }

    /// Returns what AWS would answer.
    async fn answer(&self, operation: &str, request: &Message) -> Result<Message> {
        // STS speaks forms and XML, and nothing of it is mended.
        let Some(asked) = request.json().filter(|_| request.header("x-amz-target").is_some()) else {
            return self.pass(request).await;
        };
        let reads = ["Encrypt", "Decrypt", "DescribeKey", "ListResourceTags"].contains(&operation);
        // One change at a time: moto looks for an alias and makes it in two steps.
        let _turn = if reads { None } else { Some(CHANGES.lock().await) };
        if let Err((code, words)) = self.keys.judge(operation, &asked) {
            return Ok(refusal(400, code, &words));
        }
        let answer = self.pass(&as_moto_knows_it(operation, request, &asked)).await?;
        let Some(mut body) = answer.json() else { return Ok(answer) };
        let code = body["__type"].as_str().unwrap_or_default();
        if operation == "Decrypt" && code.ends_with("AccessDeniedException") {
            // moto's word for a ciphertext of another key than the one that is named.
            return Ok(refusal(400, "IncorrectKeyException", "The key ID in the request does not identify a CMK"));
        }
        if answer.status() != 200 {
            return Ok(answer);
        }
        self.keys.done(operation, &asked, &mut body);
        Ok(Message::of(200, &body))
    }

    async fn pass(&self, request: &Message) -> Result<Message> {
        let mut moto = TcpStream::connect(self.moto).await.context("moto")?;
        moto.write_all(&request.to_bytes()).await?;
        Message::read(&mut moto).await
    }
}

/// A request or an answer.
struct Message {
    /// The first line.
    line: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Message {
    async fn read(stream: &mut TcpStream) -> Result<Self> {
        let mut bytes = Vec::new();
        let head = loop {
            if let Some(at) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break at;
            }
            ensure!(bytes.len() < BYTES_MAX && stream.read_buf(&mut bytes).await? > 0, "no head");
        };
        let text = String::from_utf8_lossy(&bytes[..head]).into_owned();
        let mut lines = text.split("\r\n");
        let line = lines.next().unwrap_or_default().to_owned();
        let headers = lines.filter_map(|line| line.split_once(':'));
        let headers = headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect();
        let mut message = Self { line, headers, body: bytes.split_off(head + 4) };
        let length = message.header("content-length").and_then(|length| length.parse().ok());
        let length: usize = length.unwrap_or(message.body.len());
        while message.body.len() < length {
            ensure!(length <= BYTES_MAX && stream.read_buf(&mut message.body).await? > 0, "a body that ends early");
        }
        Ok(message)
    }

    fn of(status: u16, body: &Value) -> Self {
        let headers = [("content-type", "application/x-amz-json-1.1"), ("x-amzn-requestid", "test-request")];
        let headers = headers.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        Self { line: format!("HTTP/1.1 {status} ANSWER"), headers, body: body.to_string().into_bytes() }
    }

    fn to_bytes(&self) -> Vec<u8> {
        let mut text = self.line.clone() + "\r\n";
        for (name, value) in &self.headers {
            if !["connection", "content-length"].contains(&name.as_str()) {
                text += &format!("{name}: {value}\r\n");
            }
        }
        text += &format!("connection: close\r\ncontent-length: {}\r\n\r\n", self.body.len());
        [text.as_bytes(), &self.body].concat()
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    fn status(&self) -> u16 {
        self.line.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or_default()
    }

    fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    fn operation(&self) -> String {
        let target = self.header("x-amz-target").and_then(|target| target.split('.').nth(1)).map(str::to_owned);
        target.unwrap_or_else(|| {
            let form = String::from_utf8_lossy(&self.body).into_owned();
            let action = form.split('&').find_map(|pair| pair.strip_prefix("Action="));
            action.unwrap_or("unknown").to_owned()
        })
    }

    fn access_key(&self) -> String {
        let signed = self.header("authorization").and_then(|signed| signed.split("Credential=").nth(1));
        signed.and_then(|signed| signed.split('/').next()).unwrap_or_default().to_owned()
    }
}

/// moto finds a key by its ARN for most operations, and for some by its id alone.
fn as_moto_knows_it(operation: &str, request: &Message, asked: &Value) -> Message {
    let by_id = ["DisableKey", "EnableKey", "ScheduleKeyDeletion", "CancelKeyDeletion"].contains(&operation);
    let mut asked = asked.clone();
    if let Some(id) = asked["KeyId"].as_str().filter(|_| by_id).and_then(|arn| arn.rsplit('/').next()) {
        asked["KeyId"] = json!(id);
    }
    Message { line: request.line.clone(), headers: request.headers.clone(), body: asked.to_string().into_bytes() }
}

fn refusal(status: u16, code: &str, words: &str) -> Message {
    Message::of(status, &json!({ "__type": code, "message": words }))
}

/// Longer than anybody waits.
const SLOW: Duration = Duration::from_secs(30);
const BYTES_MAX: usize = 1 << 20;
static CHANGES: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());
