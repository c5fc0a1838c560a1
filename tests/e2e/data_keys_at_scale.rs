//! Managed data keys in great number: every one that is made is got, after a kill, a rotation and a compaction too, and
//! takes no more of the disk than it may. What they cost is printed; `make prove-data-keys` is the same at full scale,
//! of a release build.

use anyhow::{Context as _, Result, ensure};
use kms_tests::{command, run};

use crate::at_scale;

#[tokio::test]
async fn every_managed_data_key_of_many_is_got_and_none_takes_too_much_room() -> Result<()> {
    let keys = at_scale(20_000, 100_000).to_string();
    let ended = run(command("kms-trial")?.args(["data-keys", &keys])).await?;
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    println!("{said}");
    ended.success().context(said.clone())?;
    ensure!(said.contains(&format!("got: {keys} of {keys}, twice")), "it does not say that all were got");
    Ok(())
}
