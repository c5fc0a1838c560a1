//! What a binding asks for beside names: proofs, pairs of the encryption context, and how far it lets anybody reach.

use super::*;

fn names() -> PairNames {
    PairNames::of(&["purpose", "region"]).unwrap()
}

fn read(text: &str) -> Result<Policy, PolicyError> {
    let bindings = File { label: "bindings.toml", text };
    Policy::read(&Files { bindings, own: &[], pairs: &names() })
}

fn binding(line: &str) -> String {
    format!(
        "[[binding]]\nid = \"b\"\nroles = [\"decrypter\", \"key-admin\"]\nprincipals = [\"{BILLING}\"]\ntenants = [\"*\"]\nkeys = [\"*\"]\n{line}\n"
    )
}

fn ask(policy: &Policy, action: Action, strength: Strength, pairs: Option<&[(&str, &str)]>) -> bool {
    let pairs: Option<Pairs> = pairs.map(|pairs| pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect());
    let (principal, resource) = (BILLING.parse().unwrap(), key("acme", "k"));
    let request = Request {
        principal: &principal,
        strength,
        net: HOME.parse().unwrap(),
        now: 0,
        action,
        resource: &resource,
        pairs: pairs.as_ref(),
    };
    let decision = policy.authorize(&request);
    assert_eq!(decision, policy.authorize(&request));
    decision.allowed
}

#[test]
fn a_binding_with_strength_holds_for_who_showed_all_of_it() {
    let (certificate, token, mfa) = (Strength::CERTIFICATE, Strength::TOKEN, Strength::MFA);
    for (wanted, shown, allowed) in [
        (r#"["mfa"]"#, token.and(mfa), true),
        (r#"["mfa"]"#, token, false),
        (r#"["mfa"]"#, certificate, false),
        (r#"["mfa"]"#, Strength::NONE, false),
        (r#"["certificate", "token"]"#, certificate.and(token), true),
        (r#"["certificate", "token"]"#, certificate.and(mfa), false),
        (r#"["certificate", "token", "mfa"]"#, certificate.and(token).and(mfa), true),
    ] {
        let policy = read(&binding(&format!("strength = {wanted}"))).unwrap();
        // What somebody else showed before is not remembered for this one.
        assert!(ask(&policy, Action::Decrypt, certificate.and(token).and(mfa), None));
        assert_eq!(ask(&policy, Action::Decrypt, shown, None), allowed, "{wanted} {shown}");
    }
    assert!(ask(&read(&binding("")).unwrap(), Action::Decrypt, Strength::NONE, None));
}

#[test]
fn a_binding_with_context_gives_what_carries_such_a_context_and_nothing_else() {
    let policy = read(&binding(r#"context = { purpose = ["billing", "audit"], region = "eu" }"#)).unwrap();
    for (pairs, allowed) in [
        (Some(&[("purpose", "billing"), ("region", "eu")][..]), true),
        (Some(&[("purpose", "audit"), ("region", "eu"), ("other", "x")]), true),
        (Some(&[("purpose", "billing")]), false),
        (Some(&[("purpose", "billing"), ("region", "us")]), false),
        (Some(&[("purpose", "Billing"), ("region", "eu")]), false),
        (Some(&[("Purpose", "billing"), ("region", "eu")]), false),
        (Some(&[]), false),
        (None, false),
    ] {
        assert_eq!(ask(&policy, Action::Decrypt, Strength::CERTIFICATE, pairs), allowed, "{pairs:?}");
    }
    // An action that carries none is not given.
    assert!(!ask(&policy, Action::GetKey, Strength::CERTIFICATE, None));
    assert!(policy.sees_pairs() && !Policy::load("", "").unwrap().sees_pairs());
}

#[test]
fn a_fan_out_limit_comes_with_the_decision_remembered_or_not() {
    let policy = read(&binding(r#"fan_out = { tenants = 10000, per = "30d" }"#)).unwrap();
    let limit = Some(FanOut { tenants: 10_000, per_ms: 30 * 24 * 3_600_000 });
    for _ in 0..2 {
        assert_eq!(decide(&policy, BILLING, HOME, 0, Action::Decrypt, &key("acme", "k")).fan_out, limit);
        assert_eq!(decide(&policy, SHIPPING, HOME, 0, Action::Decrypt, &key("acme", "k")).fan_out, None);
    }
    assert_eq!(
        decide(&read(&binding("")).unwrap(), BILLING, HOME, 0, Action::Decrypt, &key("acme", "k")).fan_out,
        None
    );
}

#[test]
fn a_limit_counts_tenants_and_outlives_a_reload() {
    let limited = |tenants| read(&binding(&format!("fan_out = {{ tenants = {tenants}, per = \"1h\" }}"))).unwrap();
    let in_force = InForce::new(limited(2));
    let reach = |resource: &Resource| {
        let principal: Principal = BILLING.parse().unwrap();
        let action = if *resource == cluster() { Action::ListTenants } else { Action::ListKeys };
        let (strength, net) = (Strength::CERTIFICATE, HOME.parse().unwrap());
        let decision = in_force.authorize(&Request {
            principal: &principal,
            strength,
            net,
            now: 0,
            action,
            resource,
            pairs: None,
        });
        in_force.reach(&decision, &principal, resource, || std::time::Duration::from_secs(1)) == Reach::Within
    };
    assert!(reach(&tenant("a")) && reach(&tenant("b")) && reach(&tenant("a")));
    assert!(!reach(&tenant("c")));
    assert!(reach(&cluster()), "the cluster is no tenant");
    in_force.replace(limited(2));
    assert!(!reach(&tenant("c")) && reach(&tenant("b")));
    in_force.replace(limited(3));
    assert!(reach(&tenant("c")) && !reach(&tenant("d")));
    in_force.replace(read(&binding("")).unwrap());
    assert!(reach(&tenant("d")));
    in_force.replace(limited(1));
    assert!(reach(&tenant("e")) && !reach(&tenant("a")), "what counted went with the limit");
}

#[test]
fn conditions_that_are_none_are_refused_with_their_place() {
    let told = |line: &str| match read(&binding(line)) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("{line} was taken"),
    };
    for (line, shown) in [
        (
            r#"strength = []"#,
            r#"7:12: binding "b": `strength` is empty: an empty list can be read as all or as none; list at least one entry, or remove the table"#,
        ),
        (
            r#"strength = ["mfo"]"#,
            r#"7:13: binding "b": unknown strength "mfo": there are certificate, token, mfa; did you mean "mfa"?"#,
        ),
        (
            r#"strength = ["mfa", "mfa"]"#,
            r#"7:20: binding "b": `strength` has "mfa" twice: the second one changes nothing, so that another was meant; correct or remove it"#,
        ),
        (
            r#"strength = "mfa""#,
            r#"7:12: not a file of bindings: invalid type: string "mfa", expected a sequence; a file of bindings has [[binding]] and [[group]] tables, see its reference"#,
        ),
        (
            r#"context = {}"#,
            r#"7:11: binding "b": `context` is empty: an empty table asks for nothing; name a pair and its values, as context = { purpose = ["billing"] }, or remove it"#,
        ),
        (
            r#"context = { porpose = "x" }"#,
            r#"7:13: binding "b": `context` names the pair "porpose": policy sees only pairs that the setting policy.context_pairs lists; did you mean "purpose"?"#,
        ),
        (
            r#"context = { zzz = "x" }"#,
            r#"7:13: binding "b": `context` names the pair "zzz": policy sees only pairs that the setting policy.context_pairs lists; add it to policy.context_pairs, or name one of those"#,
        ),
        (
            r#"context = { purpose = [] }"#,
            r#"7:13: binding "b": `context.purpose` is empty: an empty list can be read as all or as none; list at least one entry, or remove the table"#,
        ),
        (
            r#"context = { purpose = ["a", "a"] }"#,
            r#"7:23: binding "b": `context.purpose` has "a" twice: the second one changes nothing, so that another was meant; correct or remove it"#,
        ),
        (
            r#"context = { purpose = 7 }"#,
            r#"7:23: not a file of bindings: invalid type: integer `7`, expected a text or a list of texts; a file of bindings has [[binding]] and [[group]] tables, see its reference"#,
        ),
        (
            r#"context = "purpose""#,
            r#"7:11: not a file of bindings: invalid type: string "purpose", expected a map; a file of bindings has [[binding]] and [[group]] tables, see its reference"#,
        ),
        (
            r#"fan_out = 5"#,
            r#"7:11: not a file of bindings: invalid type: integer `5`, expected struct FanOutForm; a file of bindings has [[binding]] and [[group]] tables, see its reference"#,
        ),
        (
            r#"fan_out = { tenants = 0, per = "1h" }"#,
            r#"7:23: binding "b": `fan_out.tenants` is 0: a principal reaches 1 to 10000 tenants; write it as fan_out = { tenants = 100, per = "1h" }"#,
        ),
        (
            r#"fan_out = { tenants = -1, per = "1h" }"#,
            r#"7:23: binding "b": `fan_out.tenants` is -1: a principal reaches 1 to 10000 tenants; write it as fan_out = { tenants = 100, per = "1h" }"#,
        ),
        (
            r#"fan_out = { tenants = 10001, per = "1h" }"#,
            r#"7:23: binding "b": `fan_out.tenants` is 10001: a principal reaches 1 to 10000 tenants; write it as fan_out = { tenants = 100, per = "1h" }"#,
        ),
        (
            r#"fan_out = { tenants = 5, per = "60" }"#,
            r#"7:32: binding "b": bad `fan_out.per` "60": it is no time with its unit, as 90s, 15m, 1h or 1d; write it as fan_out = { tenants = 100, per = "1h" }"#,
        ),
        (
            r#"fan_out = { tenants = 5, per = "999ms" }"#,
            r#"7:32: binding "b": bad `fan_out.per` "999ms": a window has from 1s to 30d; write it as fan_out = { tenants = 100, per = "1h" }"#,
        ),
        (
            r#"fan_out = { tenants = 5, per = "31d" }"#,
            r#"7:32: binding "b": bad `fan_out.per` "31d": a window has from 1s to 30d; write it as fan_out = { tenants = 100, per = "1h" }"#,
        ),
        (
            r#"fan_out = { tenants = 5, per = "-1h" }"#,
            r#"7:32: binding "b": bad `fan_out.per` "-1h": it is no time with its unit, as 90s, 15m, 1h or 1d; write it as fan_out = { tenants = 100, per = "1h" }"#,
        ),
        (
            r#"fan_out = { tenants = 5 }"#,
            r#"7:11: not a file of bindings: missing field `per`; a file of bindings has [[binding]] and [[group]] tables, see its reference"#,
        ),
        (
            r#"fan_out = { tenants = 5, per = "1h", keys = 3 }"#,
            r#"7:38: not a file of bindings: unknown field `keys`, expected `tenants` or `per`; did you mean "keys"?"#,
        ),
    ] {
        assert_eq!(told(line), format!("bindings.toml:{shown}"), "{line}");
    }
    let long = format!("context = {{ purpose = \"{}\" }}", "x".repeat(4_097));
    assert!(told(&long).contains("a value has at most 4096 bytes"));
}
