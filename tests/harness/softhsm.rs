//! SoftHSM2 with tokens of one's own, in a directory of one's own: a real module for the tests.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use tokio::process::Command;

use crate::{Site, run};

/// Where packages put the module.
const PLACES: [&str; 6] = [
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/lib64/softhsm/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// Where packages put the module that writes down all calls of another.
const SPY_PLACES: [&str; 4] = [
    "/usr/lib/x86_64-linux-gnu/pkcs11-spy.so",
    "/usr/lib/aarch64-linux-gnu/pkcs11-spy.so",
    "/usr/lib64/pkcs11-spy.so",
    "/usr/lib/pkcs11-spy.so",
];

const INSTALL: &str = "install it first: apt-get install softhsm2 opensc (make test does)";

/// A SoftHSM2 and its tokens.
pub struct SoftHsm {
    dir: PathBuf,
    module: PathBuf,
}

impl SoftHsm {
    /// Makes one without tokens.
    pub fn new(dir: &Path) -> Result<Self> {
        let module = find(&PLACES).with_context(|| format!("SoftHSM2 is not here: {INSTALL}"))?;
        let made = Self { dir: dir.to_owned(), module };
        fs::create_dir_all(made.tokens())?;
        let settings = format!("directories.tokendir = {}\nlog.level = ERROR\n", made.tokens().display());
        fs::write(made.settings(), settings)?;
        Ok(made)
    }

    /// Makes one in a site, with the token `kms`, and lets the site's daemons use it.
    pub async fn of(site: &Site, pin: &str) -> Result<Self> {
        let made = Self::new(&site.path("softhsm"))?;
        made.make_token("kms", pin).await?;
        let (variable, value) = made.variable();
        site.set_variable(variable, &value);
        site.write_secret("pin", &format!("{pin}\n"))?;
        site.use_backend(&made.backend("auto"))?;
        Ok(made)
    }

    /// Returns the settings of a backend that uses it with the PIN of the file `pin`.
    pub fn backend(&self, mechanism: &str) -> String {
        let module = self.module.display();
        format!(
            "kind = \"pkcs11\"\npkcs11_module = \"{module}\"\npkcs11_token = \"kms\"\n\
             pkcs11_mechanism = \"{mechanism}\"\npin_file = \"pin\"\n"
        )
    }

    /// Makes a token.
    pub async fn make_token(&self, label: &str, pin: &str) -> Result<()> {
        let mut make = self.tool("softhsm2-util");
        make.args(["--init-token", "--free", "--label", label, "--pin", pin, "--so-pin", "security-officer"]);
        run(&mut make).await.context(INSTALL)?.success().context("making a token")?;
        Ok(())
    }

    /// Sets another PIN on the token.
    pub async fn change_pin(&self, label: &str, from: &str, to: &str) -> Result<()> {
        let mut change = self.tool("pkcs11-tool");
        change.arg("--module").arg(&self.module).args(["--token-label", label, "--login", "--pin", from]);
        run(change.args(["--change-pin", "--new-pin", to])).await.context(INSTALL)?.success()?;
        Ok(())
    }

    /// Lists the keys of a token, as another program sees them.
    pub async fn keys(&self, label: &str, pin: &str) -> Result<String> {
        let mut list = self.tool("pkcs11-tool");
        list.arg("--module").arg(&self.module).args(["--token-label", label, "--login", "--pin", pin]);
        let listed = run(list.args(["--list-objects", "--type", "secrkey"])).await.context(INSTALL)?.success()?;
        Ok(String::from_utf8_lossy(&listed.stdout).into_owned())
    }

    /// Returns the module.
    pub fn module(&self) -> &Path {
        &self.module
    }

    /// Returns the module that writes down all calls of this one.
    pub fn spy() -> Result<PathBuf> {
        find(&SPY_PLACES).with_context(|| format!("pkcs11-spy.so of OpenSC is not here: {INSTALL}"))
    }

    /// Returns the variable that tells the module where its tokens are.
    pub fn variable(&self) -> (&'static str, String) {
        ("SOFTHSM2_CONF", self.settings().display().to_string())
    }

    /// Takes all tokens away.
    pub fn pull(&self) -> Result<()> {
        fs::rename(self.tokens(), self.dir.join("pulled"))?;
        Ok(fs::create_dir(self.tokens())?)
    }

    /// Puts them back.
    pub fn put_back(&self) -> Result<()> {
        // The module may have made a token that nobody has initialised.
        fs::remove_dir_all(self.tokens())?;
        Ok(fs::rename(self.dir.join("pulled"), self.tokens())?)
    }

    fn tool(&self, name: &str) -> Command {
        let mut command = Command::new(name);
        let (variable, value) = self.variable();
        command.env(variable, value);
        command
    }

    fn tokens(&self) -> PathBuf {
        self.dir.join("tokens")
    }

    fn settings(&self) -> PathBuf {
        self.dir.join("softhsm2.conf")
    }
}

fn find(places: &[&str]) -> Option<PathBuf> {
    places.iter().map(PathBuf::from).find(|path| path.is_file())
}
