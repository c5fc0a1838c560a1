//! Why something is allowed or not, told from names alone.

use super::*;

#[test]
fn an_explanation_names_the_nearest_miss_first_and_what_is_needed() {
    let binding = |id: &str, who: &str, roles: &str, tenants: &str, keys: &str, line: &str| {
        format!(
            "[[binding]]\nid = \"{id}\"\nroles = [{roles}]\nprincipals = [\"{who}\"]\ntenants = [{tenants}]\nkeys = [{keys}]\n{line}\n"
        )
    };
    let (all, dec, enc) = ("\"*\"", "\"decrypter\"", "\"encrypter\"");
    let pairs = PairNames::of(&["purpose"]).unwrap();
    let needs = |also: &str, of: &str| {
        format!("a role that gives Decrypt: decrypter, in a binding for {BILLING} that covers {of}{also}")
    };
    let acme = "tenants/acme/keys/k";
    let forbid = r#"@id("never") forbid (principal, action == Action::"Decrypt", resource in Tenant::"tenants/acme");"#;
    let unmet = r#"@id("mfa") permit (principal, action == Action::"Decrypt", resource) when { context.auth.mfa };"#;
    for (bindings, own, verdict, needed) in [
        (binding("b", BILLING, dec, all, all, ""), "", Verdict::Allows, String::new()),
        (binding("b", SHIPPING, dec, all, all, ""), "", Verdict::OtherPrincipal, needs("", acme)),
        (binding("b", BILLING, enc, all, all, ""), "", Verdict::OtherActions, needs("", acme)),
        (binding("b", BILLING, dec, "\"globex\"", all, ""), "", Verdict::OtherResource, needs("", acme)),
        (binding("b", BILLING, dec, all, "\"pay-*\"", ""), "", Verdict::OtherResource, needs("", acme)),
        (
            binding("b", BILLING, dec, all, all, "networks = [\"192.168.0.0/16\"]"),
            "",
            Verdict::OtherNetwork,
            needs("; \"b\" would do from its networks", acme),
        ),
        (
            binding("b", BILLING, dec, all, all, "expires = 1970-01-01T00:00:01Z"),
            "",
            Verdict::Over(1_000),
            needs("; \"b\" would do while it lasts", acme),
        ),
        (
            binding("b", BILLING, dec, all, all, "strength = [\"mfa\"]"),
            "",
            Verdict::Weak(Strength::MFA),
            needs("; \"b\" would do with a proof by mfa", acme),
        ),
        (
            binding("b", BILLING, dec, all, all, "context = { purpose = \"x\" }"),
            "",
            Verdict::NoPair("purpose".into()),
            needs("; \"b\" would do with the right pair \"purpose\" in the encryption context", acme),
        ),
        (
            binding("b", BILLING, dec, all, all, ""),
            forbid,
            Verdict::Forbids,
            "the policy \"never\" forbids it: nothing that permits helps against that".to_owned(),
        ),
        (String::new(), unmet, Verdict::Unmet, needs("", acme)),
        (
            binding("far", SHIPPING, enc, "\"globex\"", all, "")
                + &binding("near", BILLING, dec, "\"globex\"", all, ""),
            "",
            Verdict::OtherResource,
            needs("", acme),
        ),
    ] {
        let own = [File { label: "own.cedar", text: own }];
        let bindings = File { label: "b.toml", text: &bindings };
        let in_force = InForce::new(Policy::read(&Files { bindings, own: &own, pairs: &pairs }).unwrap());
        let (principal, resource) = (BILLING.parse().unwrap(), key("acme", "k"));
        let (strength, net) = (Strength::CERTIFICATE, HOME.parse().unwrap());
        let request = Request {
            principal: &principal,
            strength,
            net,
            now: 5_000,
            action: Action::Decrypt,
            resource: &resource,
            pairs: None,
        };
        let told = in_force.explain(&request, Whose::Everybodys);
        assert_eq!(told.reasons[0].verdict, verdict, "{} {told:?}", bindings.text);
        assert_eq!(told.needed, needed, "{}", bindings.text);
        assert_eq!(told.decision, in_force.authorize(&request));
        assert_eq!(told.decision.allowed, verdict == Verdict::Allows);
        assert!(told.reasons.iter().all(|reason| *reason.rule != *"far"));
        assert!(!told.reasons[0].verdict.to_string().is_empty());
    }
}

#[test]
fn an_explanation_is_bounded_and_knows_what_is_never_asked() {
    let text: String = (0..100)
        .map(|n| format!("[[binding]]\nid = \"b{n}\"\nroles = [\"auditor\"]\nprincipals = [\"{BILLING}\"]\ntenants = [\"t{n}\"]\n"))
        .collect();
    let in_force = InForce::new(policy(&text));
    let principal = BILLING.parse().unwrap();
    let (strength, net) = (Strength::CERTIFICATE, HOME.parse().unwrap());
    let ask = |action, resource: &Resource| {
        let request = Request { principal: &principal, strength, net, now: 0, action, resource, pairs: None };
        in_force.explain(&request, Whose::Everybodys)
    };
    let told = ask(Action::GetTenant, &tenant("acme"));
    assert_eq!(told.reasons.len(), 20);
    assert_eq!(
        told.needed,
        format!(
            "a role that gives GetTenant: key-admin or tenant-admin or auditor, in a binding for {BILLING} that covers tenants/acme"
        )
    );
    assert_eq!(ask(Action::Lock, &tenant("acme")).needed, "Lock is not asked of tenants/acme: no role gives it there");
    assert!(ask(Action::Lock, &cluster()).needed.ends_with("covers cluster (tenants = [\"*\"])"));
    // A grant whose principal is no staff any more says so.
    let grant = Granted {
        id: "g".into(),
        principal: principal.clone(),
        roles: [Role::Decrypter].into(),
        tenant: "acme".parse().unwrap(),
        keys: Some(Names::every()),
        indexes: None,
        from: None,
        expires: 10,
    };
    in_force.set_grants(vec![grant]).unwrap();
    let told = ask(Action::Decrypt, &key("acme", "k"));
    assert_eq!((&*told.reasons[0].rule, &told.reasons[0].verdict), ("g", &Verdict::NotStaff));
    assert!(told.needed.contains("still had the role staff"), "{}", told.needed);
}
