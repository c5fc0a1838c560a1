//! The policies in deploy/aws, as AWS would read them: what each role may do, and what it may not.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// A policy's statements.
struct Policy(Vec<Value>);

impl Policy {
    fn read(name: &str) -> Result<Self> {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/aws").join(name);
        let policy: Value = serde_json::from_str(&std::fs::read_to_string(path)?)?;
        ensure!(policy["Version"] == "2012-10-17", "{name}: conditions on tags need this version");
        let statements = policy["Statement"].as_array().context("statements")?.clone();
        ensure!(statements.iter().all(|statement| statement["Effect"] == "Allow"), "{name} only allows");
        Ok(Self(statements))
    }

    fn actions(&self) -> BTreeSet<String> {
        self.0.iter().flat_map(|statement| texts(&statement["Action"])).collect()
    }

    /// Returns the conditions under which something is allowed, one for each statement.
    fn conditions(&self, action: &str) -> Vec<&Value> {
        let of = self.0.iter().filter(|statement| texts(&statement["Action"]).iter().any(|known| known == action));
        of.map(|statement| &statement["Condition"]).collect()
    }
}

fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::Array(all) => all.iter().flat_map(texts).collect(),
        Value::String(one) => vec![one.clone()],
        _ => Vec::new(),
    }
}

fn set(actions: &[&str]) -> BTreeSet<String> {
    actions.iter().map(|&action| action.to_owned()).collect()
}

#[test]
fn who_serves_may_use_keys_of_its_cluster_and_nothing_else() -> Result<()> {
    let serve = Policy::read("serve-policy.json")?;
    assert_eq!(serve.actions(), set(&["kms:Encrypt", "kms:Decrypt", "kms:DescribeKey", "sts:AssumeRole"]));
    for action in ["kms:Encrypt", "kms:Decrypt"] {
        let conditions = serve.conditions(action);
        assert_eq!(conditions.len(), 1);
        let equal = &conditions[0]["StringEquals"];
        assert_eq!(texts(&equal["kms:EncryptionContext:kms1"]), ["epoch-key", "probe"]);
        assert_eq!(equal["kms:EncryptionContext:cluster"], "CLUSTER_UID");
        for bound in ["kms:EncryptionContext:epoch", "kms:EncryptionContext:epoch-id"] {
            assert_eq!(conditions[0]["Null"][bound], "false", "{bound} must be there");
        }
    }
    Ok(())
}

#[test]
fn who_rolls_may_delete_only_what_is_retired_and_a_week_ahead() -> Result<()> {
    let roll = Policy::read("roll-policy.json")?;
    let expected = [
        "kms:CancelKeyDeletion",
        "kms:CreateAlias",
        "kms:CreateKey",
        "kms:DescribeKey",
        "kms:DisableKey",
        "kms:EnableKey",
        "kms:ListResourceTags",
        "kms:ScheduleKeyDeletion",
        "kms:TagResource",
        "kms:UntagResource",
    ];
    assert_eq!(roll.actions(), set(&expected), "it neither decrypts nor changes a policy nor moves an alias");
    let deletion = roll.conditions("kms:ScheduleKeyDeletion");
    assert_eq!(deletion.len(), 1, "one statement, so that its conditions hold together");
    assert_eq!(deletion[0]["StringEquals"]["aws:ResourceTag/kms1:cluster"], "CLUSTER_UID");
    assert_eq!(deletion[0]["StringEquals"]["aws:ResourceTag/kms1:retired"], "true");
    assert_eq!(deletion[0]["NumericGreaterThanEquals"]["kms:ScheduleKeyDeletionPendingWindowInDays"], "7");
    for action in ["kms:DisableKey", "kms:EnableKey", "kms:CancelKeyDeletion", "kms:UntagResource"] {
        for condition in roll.conditions(action) {
            assert_eq!(condition["StringEquals"]["aws:ResourceTag/kms1:cluster"], "CLUSTER_UID", "{action}");
        }
    }
    Ok(())
}

#[test]
fn what_is_made_is_tagged_and_what_is_tagged_is_the_clusters() -> Result<()> {
    let roll = Policy::read("roll-policy.json")?;
    let creation = roll.conditions("kms:CreateKey");
    assert_eq!(creation.len(), 1);
    assert_eq!(creation[0]["StringEquals"]["aws:RequestTag/kms1:cluster"], "CLUSTER_UID");
    assert_eq!(creation[0]["BoolIfExists"]["kms:MultiRegion"], "false");
    assert_eq!(roll.conditions("kms:TagResource").len(), 2);
    for condition in roll.conditions("kms:TagResource") {
        let keys = texts(&condition["ForAllValues:StringEquals"]["aws:TagKeys"]);
        assert!(!keys.is_empty() && keys.iter().all(|key| key.starts_with("kms1:")), "{condition}");
        let retires = keys.contains(&"kms1:retired".to_owned());
        let of_ours = condition["StringEquals"]["aws:ResourceTag/kms1:cluster"] == "CLUSTER_UID";
        assert_eq!(retires, of_ours, "retired is put on keys that are the cluster's already, and alone: {condition}");
    }
    Ok(())
}
