//! A running `kms-server serve`, as a child process.

use anyhow::{Context, Result, bail, ensure};
use rustix::process::{Resource, Rlimit, prlimit};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::output::Addresses;
use crate::{Caller, Ended, Identity, Output, PATIENCE, Process, Settings, Site, patiently};

/// A daemon that serves. Dropping it kills its process, and no other.
pub struct Daemon {
    site: Site,
    process: Process,
    addresses: Addresses,
}

impl Daemon {
    /// Starts a daemon on a new site where `admin` administers all and `app` uses all keys.
    pub async fn fresh() -> Result<Self> {
        Self::fresh_with(&Settings::default()).await
    }

    /// As [`Daemon::fresh`], with other settings.
    pub async fn fresh_with(settings: &Settings) -> Result<Self> {
        Self::fresh_on(Site::with(settings)?).await
    }

    /// As [`Daemon::fresh`], on a site that was made.
    pub async fn fresh_on(site: Site) -> Result<Self> {
        site.init().await?;
        site.bind_app(&["encrypter", "decrypter", "reencrypter", "eraser"])?;
        site.start().await
    }

    pub(crate) async fn start(site: Site) -> Result<Self> {
        Self::start_with(site, false).await
    }

    pub(crate) async fn start_with(site: Site, hang_up: bool) -> Result<Self> {
        let lines = site.output().text().lines().count();
        let mut process = Process::start(&mut site.command("serve")?, site.output())?;
        if hang_up {
            site.output().says_times("\n", lines + 1).await?;
            process.hang_up()?;
        }
        let serving = process.serving().await;
        let addresses = serving.with_context(|| format!("kms-server serve; it said:\n{}", site.output().tail()))?;
        let daemon = Self { site, process, addresses };
        let (code, answer) = daemon.get("/readyz").await?;
        let is_locked = code == 503 && answer.ends_with("\r\n\r\nlocked\n");
        ensure!(code == 200 || is_locked, "the daemon says it serves, but /readyz answers {answer}");
        Ok(daemon)
    }

    /// Starts a daemon that is to die at a place, `name:count`. One that died there before it served leaves only the
    /// site.
    pub async fn start_armed(site: Site, kill_point: &str) -> Result<Result<Self, Site>> {
        let mut process = Process::start(site.command("serve")?.env(KILL_POINT, kill_point), site.output())?;
        match process.serving().await {
            Ok(addresses) => Ok(Ok(Self { site, process, addresses })),
            Err(_) => {
                let code = process.ended().await?;
                ensure!(code.is_none(), "it did not die, but ended with {code:?}:\n{}", site.output().tail());
                Ok(Err(site))
            }
        }
    }

    /// Starts a daemon. One that refuses by itself leaves only the site.
    pub async fn start_unless_refused(site: Site) -> Result<Result<Self, Site>> {
        let mut process = Process::start(&mut site.command("serve")?, site.output())?;
        match process.serving().await {
            Ok(addresses) => Ok(Ok(Self { site, process, addresses })),
            Err(_) => {
                let code = process.ended().await?;
                ensure!(
                    code.is_some_and(|code| code != 0),
                    "it did not refuse, but ended with {code:?}:\n{}",
                    site.output().tail()
                );
                Ok(Err(site))
            }
        }
    }

    pub(crate) async fn refused(site: &Site) -> Result<Ended> {
        let output = Output::default();
        let mut process = Process::start(&mut site.command("serve")?, &output)?;
        if process.serving().await.is_ok() {
            process.kill()?;
        }
        let code = process.ended().await?;
        // It is the site's output too: what is said in an error may be a secret.
        site.output().add(&output.bytes());
        Ok(Ended { code, stdout: Vec::new(), stderr: output.text() })
    }

    /// Returns the id of its process.
    pub fn pid(&self) -> Result<i32> {
        Ok(self.process.id()?.as_raw_nonzero().get())
    }

    /// Returns the site it runs on.
    pub fn site(&self) -> &Site {
        &self.site
    }

    /// Returns the address for applications, `127.0.0.1:port`.
    pub fn services(&self) -> &str {
        &self.addresses.services
    }

    /// Returns the address for operators, `127.0.0.1:port`.
    pub fn operator(&self) -> &str {
        &self.addresses.operator
    }

    /// Returns a client of the library, as a principal of the site. Fails if it is not let in.
    pub async fn client(&self, name: &str) -> Result<kms_client::Client> {
        let identity = self.site.identity(name)?;
        let client = kms_client::Client::builder(format!("https://{}", self.addresses.services))
            .operator_endpoint(format!("https://{}", self.addresses.operator))
            .ca_pem(self.site.authority().pem())
            .identity_pem(identity.certificate, identity.key)
            .timeout(PATIENCE)
            .connect()
            .await;
        client.with_context(|| format!("connecting as {name}"))
    }

    /// Returns a caller on connections of its own, as a principal of the site: `app`, `admin`.
    pub fn caller(&self, name: &str) -> Result<Caller> {
        self.caller_with(Some(&self.site.identity(name)?))
    }

    /// Returns a caller that reaches the services by another address, such as a [`CutWay`](crate::cut::CutWay).
    pub fn caller_by(&self, name: &str, services: &str) -> Result<Caller> {
        let (ca, identity) = (self.site.authority().pem(), self.site.identity(name)?);
        Caller::new(services, &self.addresses.operator, &ca, Some(&identity), self.site.ledger())
    }

    /// Returns a caller with any certificate, or with none.
    pub fn caller_with(&self, identity: Option<&Identity>) -> Result<Caller> {
        let (services, operator) = (&self.addresses.services, &self.addresses.operator);
        Caller::new(services, operator, &self.site.authority().pem(), identity, self.site.ledger())
    }

    /// Returns the status code of a GET on the probes listener.
    pub async fn probe(&self, path: &str) -> Result<u16> {
        Ok(self.get(path).await?.0)
    }

    /// Returns the status code and all of the answer to a GET on the probes listener.
    pub async fn get(&self, path: &str) -> Result<(u16, String)> {
        patiently("the answer of a probe", async {
            let mut stream = TcpStream::connect(&self.addresses.probes).await.context("connecting to the probes")?;
            let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
            stream.write_all(request.as_bytes()).await?;
            let mut answer = String::new();
            stream.read_to_string(&mut answer).await?;
            let code = answer.strip_prefix("HTTP/1.1 ").and_then(|rest| rest.get(..3)?.parse().ok());
            let code = code.with_context(|| format!("no HTTP answer: {answer:?}"))?;
            Ok((code, answer))
        })
        .await?
    }

    /// Returns its resident memory in bytes.
    pub fn resident_bytes(&self) -> Result<u64> {
        let pid = self.process.id()?.as_raw_nonzero();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
        let kib = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:")?.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
        Ok(kib.context("the kernel says how much is resident")? * 1024)
    }

    /// Makes every write of the daemon fail that would reach beyond this size of a file.
    pub fn limit_file_bytes(&self, bytes: u64) -> Result<()> {
        let limit = Rlimit { current: Some(bytes), maximum: None };
        prlimit(Some(self.process.id()?), Resource::Fsize, limit).context("lowering the limit of file sizes")?;
        Ok(())
    }

    /// Asks it to read again what can change (SIGHUP).
    pub fn hang_up(&self) -> Result<()> {
        self.process.hang_up()
    }

    /// Returns the value of a metric, named as it is shown: `kms_requests_total{method="Encrypt",code="OK"}`.
    pub async fn metric(&self, name: &str) -> Result<f64> {
        let (_, shown) = self.get("/metrics").await?;
        let value = shown.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok());
        value.with_context(|| format!("there is no metric {name}"))
    }

    /// Asks it to stop (SIGTERM).
    pub fn terminate(&self) -> Result<()> {
        self.process.terminate()
    }

    /// Waits until it has ended by itself, and returns its exit code and the site.
    pub async fn ended(self) -> Result<(Option<i32>, Site)> {
        Ok((self.process.ended().await?, self.site))
    }

    /// Stops it (SIGTERM), and expects that it ends well.
    pub async fn stop(self) -> Result<Site> {
        self.terminate()?;
        let (code, site) = self.ended().await?;
        if code != Some(0) {
            bail!("kms-server ended with {code:?} after SIGTERM; it said:\n{}", site.output().tail());
        }
        Ok(site)
    }

    /// Kills it (SIGKILL), as a crash would.
    pub async fn kill(mut self) -> Result<Site> {
        self.process.kill()?;
        Ok(self.ended().await?.1)
    }

    /// Stops it and starts it again. It listens elsewhere then: callers must be made anew.
    pub async fn restart(self) -> Result<Self> {
        self.stop().await?.start().await
    }
}

/// What arms a place to die at.
pub(crate) const KILL_POINT: &str = "KMS_SERVER_KILL_POINT";
