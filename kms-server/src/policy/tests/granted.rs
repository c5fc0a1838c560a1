//! What staff was granted beside the policy: it counts while the policy lets its principal ask for grants there.

use super::*;

const STAFF: &str = "spiffe://example.com/staff/ann";

fn staff_binding(line: &str) -> String {
    format!(
        "[[binding]]\nid = \"staff\"\nroles = [\"staff\"]\nprincipals = [\"{STAFF}\"]\ntenants = [\"acme\", \"globex\"]\n{line}\n"
    )
}

fn granted(id: &str, roles: &[Role], keys: Option<&[&str]>, from: Option<u64>, expires: u64) -> Granted {
    Granted {
        id: id.into(),
        principal: STAFF.parse().unwrap(),
        roles: roles.into(),
        tenant: "acme".parse().unwrap(),
        keys: keys.map(|keys| Names::read(keys).unwrap()),
        indexes: None,
        from,
        expires,
    }
}

fn rule(
    all: &InForce,
    who: &str,
    net: &str,
    strength: Strength,
    now: u64,
    action: Action,
    of: &Resource,
) -> Option<String> {
    let principal = who.parse().unwrap();
    let net = net.parse().unwrap();
    let request = Request { principal: &principal, strength, net, now, action, resource: of, pairs: None };
    let decision = all.authorize(&request);
    assert_eq!(decision, all.authorize(&request));
    decision.allowed.then(|| decision.rule.to_string())
}

fn at(all: &InForce, now: u64, action: Action, of: &Resource) -> Option<String> {
    rule(all, STAFF, HOME, Strength::CERTIFICATE, now, action, of)
}

#[test]
fn a_grant_gives_its_roles_on_its_tenant_for_its_time() {
    let all = InForce::new(policy(&staff_binding("")));
    assert_eq!(at(&all, 15, Action::Decrypt, &key("acme", "k")), None);
    all.set_grants(vec![granted("g1", &[Role::Decrypter], Some(&["k", "pay-*"]), Some(10), 20)]).unwrap();
    for (now, action, of, expected) in [
        (9, Action::Decrypt, key("acme", "k"), None),
        (10, Action::Decrypt, key("acme", "k"), Some("g1")),
        (19, Action::Decrypt, key("acme", "pay-1"), Some("g1")),
        (20, Action::Decrypt, key("acme", "k"), None),
        (9, Action::Decrypt, key("acme", "k"), None),
        (15, Action::Decrypt, key("acme", "other"), None),
        (15, Action::Encrypt, key("acme", "k"), None),
        (15, Action::Decrypt, key("globex", "k"), None),
        (15, Action::RequestGrant, tenant("acme"), Some("staff")),
    ] {
        assert_eq!(at(&all, now, action, &of).as_deref(), expected, "{now} {action} {of}");
    }
    let other = "spiffe://example.com/staff/bob";
    assert_eq!(rule(&all, other, HOME, Strength::CERTIFICATE, 15, Action::Decrypt, &key("acme", "k")), None);
    let views = all.bindings_of(&STAFF.parse().unwrap(), HOME.parse().unwrap(), 15);
    assert_eq!(views.iter().map(|view| &*view.id).collect::<Vec<_>>(), ["staff", "g1"]);
    all.set_grants(Vec::new()).unwrap();
    assert_eq!(at(&all, 15, Action::Decrypt, &key("acme", "k")), None);
}

#[test]
fn a_grant_ends_with_the_binding_that_lets_its_principal_ask() {
    let all = InForce::new(policy(&staff_binding("")));
    all.set_grants(vec![granted("g1", &[Role::Decrypter], Some(&["*"]), None, 20)]).unwrap();
    let may = |net, strength| rule(&all, STAFF, net, strength, 0, Action::Decrypt, &key("acme", "k")).is_some();
    assert!(may(HOME, Strength::CERTIFICATE));
    // Taken away, and given back: grants outlive a reload.
    all.replace(policy(""));
    assert!(!may(HOME, Strength::CERTIFICATE));
    all.replace(policy(&staff_binding("").replace("\"acme\", ", "")));
    assert!(!may(HOME, Strength::CERTIFICATE));
    all.replace(policy(&staff_binding("strength = [\"mfa\"]\nnetworks = [\"10.0.0.0/8\"]")));
    assert!(may(HOME, Strength::MFA));
    assert!(!may(HOME, Strength::CERTIFICATE) && !may("192.168.0.1", Strength::MFA));
    all.replace(policy(&staff_binding("")));
    assert!(may(HOME, Strength::CERTIFICATE));
}

#[test]
fn what_forbids_beats_a_grant_and_a_binding_comes_before_it() {
    let text = staff_binding("")
        + &format!(
            "[[binding]]\nid = \"own\"\nroles = [\"auditor\"]\nprincipals = [\"{STAFF}\"]\ntenants = [\"acme\"]\n"
        );
    let forbid =
        r#"@id("never") forbid (principal, action == Action::"Decrypt", resource == Key::"tenants/acme/keys/root");"#;
    let bindings = File { label: "b.toml", text: &text };
    let own = [File { label: "own.cedar", text: forbid }];
    let all = InForce::new(Policy::read(&Files { bindings, own: &own, pairs: &PairNames::default() }).unwrap());
    all.set_grants(vec![granted("g1", &[Role::Decrypter, Role::Auditor], Some(&["*"]), None, 20)]).unwrap();
    assert_eq!(at(&all, 0, Action::Decrypt, &key("acme", "k")).as_deref(), Some("g1"));
    assert_eq!(at(&all, 0, Action::GetTenant, &tenant("acme")).as_deref(), Some("own"));
    let principal = STAFF.parse().unwrap();
    let (net, resource) = (HOME.parse().unwrap(), &key("acme", "root"));
    let (strength, action) = (Strength::CERTIFICATE, Action::Decrypt);
    let denied =
        all.authorize(&Request { principal: &principal, strength, net, now: 0, action, resource, pairs: None });
    assert_eq!((denied.allowed, &*denied.rule), (false, "never"));
}
