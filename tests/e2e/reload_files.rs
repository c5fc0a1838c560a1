//! Files that change are read again without being asked: once they have stopped changing, all or nothing, and once.

use anyhow::{Result, ensure};
use kms_tests::Site;
use kms_tests::request::encrypt;
use tonic::Code;

use crate::{ACME_KEY, World, refused};

const DONE: &str = r#""message":"reloaded""#;
const FAILED: &str = "nothing was reloaded";

#[tokio::test]
async fn a_change_of_files_is_taken_and_a_bad_one_is_told_of_once() -> Result<()> {
    let site = Site::temporary()?;
    let settings = site.read("kms.toml")?;
    site.write("kms.toml", &settings.replace("[backend]", "[reload]\nwatch = \"10ms\"\n\n[backend]"))?;
    let world = World::at(site).await?;
    let site = world.daemon.site();
    let output = site.output();
    let given = site.read("bindings.toml")?;
    let without = given.replace("\"encrypter\", ", "");
    let asks = async || world.app.ask(encrypt(ACME_KEY, b"x", &[])).await;

    site.write("bindings.toml", &without)?;
    output.says_times(DONE, 1).await?;
    refused(Code::PermissionDenied, "POLICY_DENIED", asks().await);
    site.write("bindings.toml", &given)?;
    output.says_times(DONE, 2).await?;
    asks().await?;

    // A bad one leaves all as it was, and is told of once, however often it is looked at.
    site.write("bindings.toml", "[[binding]]\nid = \"torn")?;
    output.says_times(FAILED, 1).await?;
    for _ in 0..500 {
        asks().await?;
    }
    ensure!(output.text().matches(FAILED).count() == 1, "it was tried again");
    // Also what is good in another file is not taken beside it.
    site.write("ca.pem", &kms_tests::Authority::new()?.pem())?;
    output.says_times(FAILED, 2).await?;
    asks().await?;
    site.write("ca.pem", &site.authority().pem())?;
    site.write("bindings.toml", &without)?;
    output.says_times(DONE, 3).await?;
    refused(Code::PermissionDenied, "POLICY_DENIED", asks().await);

    // By a link that is turned, as a volume of Kubernetes is replaced.
    std::fs::create_dir(site.path("one"))?;
    std::fs::create_dir(site.path("two"))?;
    site.write("one/bindings.toml", &without)?;
    site.write("two/bindings.toml", &given)?;
    std::os::unix::fs::symlink("one", site.path("data-now"))?;
    site.change_settings("\"bindings.toml\"", "\"data-now/bindings.toml\"")?;
    output.says_times(DONE, 4).await?;
    std::os::unix::fs::symlink("two", site.path("data-next"))?;
    std::fs::rename(site.path("data-next"), site.path("data-now"))?;
    output.says_times(DONE, 5).await?;
    asks().await?;
    ensure!(output.text().matches(DONE).count() == 5, "a reload without a change");
    world.finish().await
}
