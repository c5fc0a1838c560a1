mod conditions;
mod explained;
mod granted;
mod mistakes;
mod own_policies;
mod remembered;

use super::*;

const BILLING: &str = "spiffe://example.com/billing";
const SHIPPING: &str = "spiffe://example.com/shipping";
const HOME: &str = "10.1.2.3";

fn policy(text: &str) -> Policy {
    Policy::load(text, "bindings.toml").unwrap()
}

fn cluster() -> Resource {
    Resource::Cluster
}

fn tenant(tenant: &str) -> Resource {
    Resource::Tenant(tenant.parse().unwrap())
}

fn key(tenant: &str, key: &str) -> Resource {
    Resource::Key(tenant.parse().unwrap(), key.parse().unwrap())
}

fn index(tenant: &str, index: &str) -> Resource {
    Resource::Index(tenant.parse().unwrap(), index.parse().unwrap())
}

fn decide(policy: &Policy, who: &str, net: &str, now: UnixMillis, action: Action, of: &Resource) -> Decision {
    let principal = who.parse().unwrap();
    let net = net.parse().unwrap();
    policy.authorize(&Request {
        principal: &principal,
        strength: Strength::CERTIFICATE,
        net,
        now,
        action,
        resource: of,
        pairs: None,
    })
}

/// Returns the rule that allows, or nothing.
fn rule(policy: &Policy, who: &str, action: Action, of: &Resource) -> Option<String> {
    let decision = decide(policy, who, HOME, 0, action, of);
    assert!(!decision.errors);
    assert_eq!(decision.allowed, &*decision.rule != RULE_DEFAULT);
    decision.allowed.then(|| decision.rule.to_string())
}

fn may(policy: &Policy, who: &str, action: Action, of: &Resource) -> bool {
    rule(policy, who, action, of).is_some()
}

/// A binding of both data roles for billing, on key `k` of tenant `acme`, with a line more.
fn billing_with(line: &str) -> Policy {
    policy(&format!(
        r#"
        [[binding]]
        id = "billing-acme"
        roles = ["encrypter", "decrypter"]
        principals = ["{BILLING}"]
        tenants = ["acme"]
        keys = ["k"]
        {line}
        "#
    ))
}

/// The role on two keys or indexes of acme, one of them by prefix, or on everything.
fn of_role(role: Role, everything: bool) -> Policy {
    let templates = Templates::shipped().unwrap();
    let has = |level| templates.levels(role).any(|of| of == level);
    let mut text = format!("[[binding]]\nid = \"b\"\nroles = [\"{role}\"]\nprincipals = [\"{BILLING}\"]\n");
    // The operator acts on the cluster only: there is no narrower binding of it.
    let narrow = !everything && role != Role::Operator;
    text += if narrow { "tenants = [\"acme\"]\n" } else { "tenants = [\"*\"]\n" };
    for (level, list) in [(templates::Level::Keys, "keys"), (templates::Level::Indexes, "indexes")] {
        if has(level) {
            let names = if narrow { r#"["own", "pay-*"]"# } else { r#"["*"]"# };
            text += &format!("{list} = {names}\n");
        }
    }
    policy(&text)
}

/// A resource of the kind that the action is asked of.
fn resource_of(action: Action, of_tenant: &str, name: &str) -> Resource {
    use Action::*;
    match action {
        GetIndexKey => index(of_tenant, name),
        CreateTenant
        | GetTenant
        | UpdateTenant
        | SuspendTenant
        | ResumeTenant
        | DestroyTenant
        | CancelTenantDestruction
        | ListKeys
        | RequestGrant
        | ApproveGrant
        | RevokeGrant
        | GetGrant
        | ListGrants => tenant(of_tenant),
        ListTenants | GetStatus | Lock | Unlock | ExportKeystore | Reload | TestPermissions | GetCallerIdentity => {
            cluster()
        }
        Encrypt
        | Decrypt
        | ReEncrypt
        | GenerateDataKey
        | DecryptDataKey
        | CreateDataKey
        | GetDataKey
        | DestroyDataKey
        | GenerateMac
        | VerifyMac
        | CreateKey
        | GetKey
        | UpdateKey
        | EnableKey
        | DisableKey
        | RotateKey
        | ListKeyVersions
        | ScheduleKeyDestruction
        | CancelKeyDestruction
        | ListDataKeys => key(of_tenant, name),
    }
}

// One line for each action, one column for each role. `matrix.golden` says what the letters mean.
fn matrix() -> String {
    let policies = Role::ALL.map(|role| (of_role(role, false), of_role(role, true)));
    let head = Role::ALL.map(|role| format!("{:<14}", role.as_str())).concat();
    let mut lines = vec![format!("{:<25}{head}", "")];
    for &action in Action::ALL {
        let named = resource_of(action, "acme", "own");
        let cells = policies.each_ref().map(|(narrow, wide)| {
            let case = |policy, letter, of_tenant, name| {
                let of = resource_of(action, of_tenant, name);
                match may(policy, BILLING, action, &of) {
                    _ if letter != 'n' && of == named => '-',
                    true => letter,
                    false => '.',
                }
            };
            let cell = String::from_iter([
                case(narrow, 'n', "acme", "own"),
                case(narrow, 'p', "acme", "pay-1"),
                case(narrow, 'q', "acme", "pay"),
                case(narrow, 'o', "acme2", "own"),
            ]);
            let any = resource_of(action, "acme2", "any");
            let wide = if may(wide, BILLING, action, &any) { 'w' } else { '.' };
            format!("{:<14}", format!("{cell}{wide}"))
        });
        lines.push(format!("{:<25}{}", action.as_str(), cells.concat()));
    }
    lines.iter().map(|line| line.trim_end().to_owned() + "\n").collect()
}

#[test]
fn the_matrix_of_roles_and_actions_is_the_reviewed_one() {
    let golden = include_str!("matrix.golden");
    let table: String = golden.lines().filter(|line| !line.starts_with('#')).map(|l| l.to_owned() + "\n").collect();
    assert!(matrix() == table, "the matrix is now\n{}", matrix());
}

/// What is asked of a tenant, or of all of them.
const ON_CLUSTER_TOO: [Action; 5] =
    [Action::RequestGrant, Action::ApproveGrant, Action::RevokeGrant, Action::GetGrant, Action::ListGrants];

#[test]
fn the_grants_of_all_tenants_are_seen_and_decided_by_few() {
    use Role::*;
    let may_all: [(Action, &[Role]); 5] = [
        (Action::RequestGrant, &[]),
        (Action::ApproveGrant, &[Approver]),
        (Action::RevokeGrant, &[Operator, Approver]),
        (Action::GetGrant, &[Auditor, Operator, Approver]),
        (Action::ListGrants, &[Auditor, Operator, Approver]),
    ];
    for (action, roles) in may_all {
        for role in Role::ALL {
            assert_eq!(
                may(&of_role(role, true), BILLING, action, &cluster()),
                roles.contains(&role),
                "{action} {role}"
            );
            // A binding to one tenant never reaches all.
            let narrow = of_role(role, false);
            assert!(role == Operator || !may(&narrow, BILLING, action, &cluster()), "{action} {role}");
        }
    }
}

#[test]
fn every_action_is_in_some_role_but_none_is_in_all() {
    for line in matrix().lines().skip(1) {
        let action = line.split_whitespace().next().unwrap();
        let roles = line.split_whitespace().skip(1).filter(|cell| cell.contains('w')).count();
        let all = action == "GetCallerIdentity";
        assert!(if all { roles == Role::ALL.len() } else { (1..Role::ALL.len()).contains(&roles) }, "{action}");
    }
}

#[test]
fn an_empty_policy_denies_everything_but_asking_who_one_is() {
    let policy = policy("");
    for &action in Action::ALL {
        for of in [cluster(), tenant("acme"), key("acme", "k"), index("acme", "i")] {
            let decision = decide(&policy, BILLING, HOME, 0, action, &of);
            let own = action == Action::GetCallerIdentity;
            assert_eq!((decision.allowed, &*decision.rule), (own, if own { "self" } else { "default" }));
        }
    }
}

#[test]
fn an_unknown_principal_is_denied_whatever_others_may() {
    let policy = billing_with("");
    let of = key("acme", "k");
    assert!(may(&policy, BILLING, Action::Encrypt, &of));
    for other in [
        SHIPPING,
        "spiffe://example.com/billing2",
        "spiffe://example.com/billin",
        "spiffe://example.com/billing/sub",
        "spiffe://example.org/billing",
        "spiffe://example.com/Billing",
    ] {
        assert!(!may(&policy, other, Action::Encrypt, &of), "{other}");
    }
}

#[test]
fn a_binding_covers_its_tenant_and_key_and_no_neighbour() {
    let policy = billing_with("");
    assert_eq!(rule(&policy, BILLING, Action::Encrypt, &key("acme", "k")).as_deref(), Some("billing-acme"));
    for of in [key("acme", "k2"), key("acme", "K"), key("acme2", "k"), key("Acme", "k"), key("k", "acme")] {
        assert!(!may(&policy, BILLING, Action::Encrypt, &of), "{of}");
    }
}

#[test]
fn a_binding_without_keys_gives_no_key_and_one_without_indexes_no_index() {
    let keys = billing_with("");
    assert!(!may(&keys, BILLING, Action::GetIndexKey, &index("acme", "k")));
    let indexes = policy(&format!(
        "[[binding]]\nid = \"b\"\nroles = [\"decrypter\"]\nprincipals = [\"{BILLING}\"]\ntenants = [\"acme\"]\nindexes = [\"mail\"]"
    ));
    assert!(may(&indexes, BILLING, Action::GetIndexKey, &index("acme", "mail")));
    assert!(!may(&indexes, BILLING, Action::GetIndexKey, &index("acme", "phone")));
    assert!(!may(&indexes, BILLING, Action::Decrypt, &key("acme", "mail")));
    let tenants = policy(&format!(
        "[[binding]]\nid = \"b\"\nroles = [\"key-admin\"]\nprincipals = [\"{BILLING}\"]\ntenants = [\"*\"]"
    ));
    assert!(may(&tenants, BILLING, Action::ListKeys, &tenant("acme")));
    assert!(!may(&tenants, BILLING, Action::GetKey, &key("acme", "k")));
}

#[test]
fn tenant_level_actions_do_not_depend_on_the_keys_listed() {
    let policy = policy(&format!(
        "[[binding]]\nid = \"b\"\nroles = [\"key-admin\"]\nprincipals = [\"{BILLING}\"]\ntenants = [\"acme\"]\nkeys = [\"pay-*\"]"
    ));
    assert!(may(&policy, BILLING, Action::CreateKey, &key("acme", "pay-7")));
    assert!(!may(&policy, BILLING, Action::CreateKey, &key("acme", "ship-7")));
    assert!(may(&policy, BILLING, Action::ListKeys, &tenant("acme")));
    assert!(!may(&policy, BILLING, Action::ListKeys, &tenant("acme2")));
}

#[test]
fn only_a_binding_to_all_tenants_reaches_the_cluster() {
    let with = |tenants: &str| {
        policy(&format!(
            "[[binding]]\nid = \"b\"\nroles = [\"tenant-admin\"]\nprincipals = [\"{BILLING}\"]\ntenants = [{tenants}]"
        ))
    };
    assert!(may(&with(r#""*""#), BILLING, Action::ListTenants, &cluster()));
    assert!(!may(&with(r#""acme""#), BILLING, Action::ListTenants, &cluster()));
    // A tenant whose name looks like the cluster's is a tenant.
    assert!(!may(&with(r#""cluster""#), BILLING, Action::ListTenants, &cluster()));
}

#[test]
fn an_action_on_a_resource_of_another_kind_is_denied_even_to_all_roles_everywhere() {
    let policy = policy(&format!(
        "[[binding]]\nid = \"all\"\nroles = [{}]\nprincipals = [\"{BILLING}\"]\ntenants = [\"*\"]\nkeys = [\"*\"]\nindexes = [\"*\"]",
        Role::ALL.map(|role| format!("\"{role}\"")).join(", ")
    ));
    for &action in Action::ALL {
        let right = resource_of(action, "acme", "k");
        assert!(may(&policy, BILLING, action, &right), "{action}");
        for of in [cluster(), tenant("acme"), key("acme", "k"), index("acme", "k")] {
            let of_all = of == cluster() && ON_CLUSTER_TOO.contains(&action);
            if of != right && !of_all && action != Action::GetCallerIdentity {
                assert!(!may(&policy, BILLING, action, &of), "{action} {of}");
            }
        }
    }
}

#[test]
fn a_binding_with_networks_holds_inside_them_only() {
    let of = key("acme", "k");
    let policy = billing_with(r#"networks = ["10.0.0.0/8", "2001:db8::/32"]"#);
    for (net, inside) in [
        ("10.0.0.0", true),
        ("10.255.255.255", true),
        ("::ffff:10.1.2.3", true),
        ("2001:db8::7", true),
        ("9.255.255.255", false),
        ("11.0.0.0", false),
        ("2001:db9::7", false),
        ("::ffff:11.1.2.3", false),
    ] {
        let decision = decide(&policy, BILLING, net, 0, Action::Encrypt, &of);
        assert_eq!(decision.allowed, inside, "{net}");
        assert!(decide(&billing_with(""), BILLING, net, 0, Action::Encrypt, &of).allowed, "{net}");
    }
}

#[test]
fn a_binding_ends_at_the_very_millisecond_it_expires() {
    let of = key("acme", "k");
    let end: UnixMillis = 1_798_761_600_000; // 2027-01-01T00:00:00Z
    for line in ["expires = 2027-01-01T00:00:00Z", "expires = 2027-01-01T02:00:00+02:00"] {
        let policy = billing_with(line);
        let at = |now| decide(&policy, BILLING, HOME, now, Action::Encrypt, &of).allowed;
        assert!(at(0) && at(end - 1), "{line}");
        assert!(!at(end) && !at(end + 1) && !at(u64::MAX), "{line}");
    }
    let ever = billing_with("");
    assert!(decide(&ever, BILLING, HOME, u64::MAX, Action::Encrypt, &of).allowed);
    let never = billing_with("expires = 1969-12-31T23:59:59Z");
    assert!(!decide(&never, BILLING, HOME, 0, Action::Encrypt, &of).allowed);
}

#[test]
fn a_group_gives_to_its_members_and_to_nobody_else() {
    let policy = policy(&format!(
        r#"
        [[group]]
        name = "services"
        members = ["{BILLING}", "{SHIPPING}"]
        [[group]]
        name = "others"
        members = ["spiffe://example.com/other"]
        [[binding]]
        id = "services"
        roles = ["encrypter"]
        groups = ["services"]
        tenants = ["acme"]
        keys = ["*"]
        [[binding]]
        id = "others"
        roles = ["decrypter"]
        groups = ["others"]
        tenants = ["acme"]
        keys = ["*"]
        "#
    ));
    let of = key("acme", "k");
    for (who, encrypt, decrypt) in [
        (BILLING, true, false),
        (SHIPPING, true, false),
        ("spiffe://example.com/other", false, true),
        // The name of a group is no principal, however it is dressed.
        ("spiffe://example.com/services", false, false),
    ] {
        assert_eq!(may(&policy, who, Action::Encrypt, &of), encrypt, "{who}");
        assert_eq!(may(&policy, who, Action::Decrypt, &of), decrypt, "{who}");
    }
}

#[test]
fn the_first_binding_in_the_file_that_allows_is_the_rule() {
    let binding = |id: &str, role: &str, tenants: &str, who: &str| {
        format!("[[binding]]\nid = \"{id}\"\nroles = [\"{role}\"]\n{who}\ntenants = [\"{tenants}\"]\nkeys = [\"*\"]\n")
    };
    let by_name = format!("principals = [\"{BILLING}\"]");
    let by_group = "groups = [\"g\"]";
    let group = format!("[[group]]\nname = \"g\"\nmembers = [\"{BILLING}\"]\n");
    let of = key("acme", "k");
    // Whichever way a binding reaches the caller, its place in the file is what counts.
    let ways = [("acme", &*by_name), ("*", &*by_name), ("acme", by_group), ("*", by_group)];
    for first in ways {
        for second in ways {
            let text = group.clone()
                + &binding("zero", "decrypter", "*", &by_name)
                + &binding("one", "encrypter", first.0, first.1)
                + &binding("two", "encrypter", second.0, second.1);
            let policy = policy(&text);
            assert_eq!(rule(&policy, BILLING, Action::Encrypt, &of).as_deref(), Some("one"));
            assert_eq!(rule(&policy, BILLING, Action::Decrypt, &of).as_deref(), Some("zero"));
        }
    }
}

#[test]
fn a_binding_out_of_force_does_not_hide_a_later_one() {
    let policy = policy(&format!(
        r#"
        [[binding]]
        id = "office"
        roles = ["encrypter"]
        principals = ["{BILLING}"]
        tenants = ["*"]
        keys = ["*"]
        networks = ["192.168.0.0/16"]
        [[binding]]
        id = "first-second"
        roles = ["encrypter"]
        principals = ["{BILLING}"]
        tenants = ["acme"]
        keys = ["*"]
        expires = 1970-01-01T00:00:01Z
        [[binding]]
        id = "always"
        roles = ["encrypter"]
        principals = ["{BILLING}"]
        tenants = ["acme"]
        keys = ["k"]
        "#
    ));
    let rule = |net, now| decide(&policy, BILLING, net, now, Action::Encrypt, &key("acme", "k")).rule.to_string();
    assert_eq!(rule("192.168.7.7", 0), "office");
    assert_eq!(rule(HOME, 999), "first-second");
    assert_eq!(rule(HOME, 1_000), "always");
    assert_eq!(rule("192.168.7.7", 1_000), "office");
}

#[test]
fn the_tenants_of_others_stay_theirs_however_many_bindings_name_them() {
    let binding = |id: &str, who: &str, tenants: &str| {
        format!(
            "[[binding]]\nid = \"{id}\"\nroles = [\"encrypter\", \"key-admin\"]\nprincipals = [\"{who}\"]\ntenants = [{tenants}]\nkeys = [\"*\"]\nindexes = [\"*\"]\n"
        )
    };
    // Billing has its tenants in no order, and fewer or more bindings than the tenant has.
    let own = [r#""zeta", "acme", "mid""#, r#""zeta""#, r#""acme""#];
    for count in 0..=own.len() {
        for others in 0..5 {
            let text: String = (0..others)
                .map(|n| binding(&format!("s{n}"), SHIPPING, r#""globex", "acme""#))
                .chain((0..count).map(|n| binding(&format!("b{n}"), BILLING, own[n])))
                .collect();
            let policy = policy(&text);
            for (of_tenant, mine) in [("acme", count > 0), ("mid", count > 0), ("globex", false)] {
                for action in [Action::Encrypt, Action::GetIndexKey, Action::ListKeys] {
                    let of = resource_of(action, of_tenant, "k");
                    assert_eq!(may(&policy, BILLING, action, &of), mine, "{count} {others} {of}");
                    assert_eq!(may(&policy, SHIPPING, action, &of), others > 0 && of_tenant != "mid");
                }
            }
        }
    }
}

#[test]
fn many_bindings_of_one_principal_find_the_one_of_the_tenant() {
    let binding = |n: usize, who: &str| {
        format!(
            "[[binding]]\nid = \"b{n}\"\nroles = [\"encrypter\"]\nprincipals = [\"{who}\"]\ntenants = [\"t{n}\", \"shared\"]\nkeys = [\"k{n}\"]\n"
        )
    };
    let text: String = (0..300).map(|n| binding(n, if n % 3 == 0 { SHIPPING } else { BILLING })).collect();
    let policy = policy(&text);
    for n in 0..300 {
        let (own, k) = (format!("t{n}"), format!("k{n}"));
        let expected = (n % 3 != 0).then(|| format!("b{n}"));
        assert_eq!(rule(&policy, BILLING, Action::Encrypt, &key(&own, &k)), expected);
        assert_eq!(rule(&policy, BILLING, Action::Encrypt, &key("shared", &k)), expected);
        assert_eq!(rule(&policy, BILLING, Action::Encrypt, &key(&format!("t{}", n + 1), &k)), None);
    }
}

#[test]
fn an_evaluation_error_denies() {
    let permit = r#"@role("encrypter") @level("keys") permit (principal in ?principal, action in [Action::"Encrypt"], resource is Key in ?resource)"#;
    let load = |templates: String, roles: &str| {
        let text = format!(
            "[[binding]]\nid = \"b\"\nroles = [{roles}]\nprincipals = [\"{BILLING}\"]\ntenants = [\"acme\"]\nkeys = [\"*\"]"
        );
        let bindings = File { label: "bindings.toml", text: &text };
        let files = Files { bindings, own: &[], pairs: &PairNames::default() };
        Policy::build(&files, &Templates::unvalidated(&templates), Vec::new()).unwrap()
    };
    let of = key("acme", "k");
    let sound = load(format!("{permit};"), r#""encrypter""#);
    assert!(decide(&sound, BILLING, HOME, 0, Action::Encrypt, &of).allowed);
    // A second template that cannot be evaluated takes the first one's permission away.
    let broken = permit.replace("encrypter", "decrypter");
    let broken = load(format!("{permit}; {broken} unless {{ resource.frozen }};"), r#""encrypter", "decrypter""#);
    let decision = decide(&broken, BILLING, HOME, 0, Action::Encrypt, &of);
    assert_eq!((decision.allowed, decision.errors, &*decision.rule), (false, true, RULE_DEFAULT));
}

#[test]
fn a_principal_learns_its_bindings_in_force_in_file_order() {
    let policy = policy(&format!(
        r#"
        [[group]]
        name = "services"
        members = ["{BILLING}"]
        [[binding]]
        id = "by-group"
        roles = ["encrypter", "decrypter"]
        groups = ["services"]
        principals = ["{BILLING}"]
        tenants = ["acme"]
        keys = ["*"]
        [[binding]]
        id = "not-mine"
        roles = ["auditor"]
        principals = ["{SHIPPING}"]
        tenants = ["*"]
        [[binding]]
        id = "by-name"
        roles = ["auditor"]
        principals = ["{BILLING}"]
        tenants = ["*"]
        networks = ["192.168.0.0/16"]
        expires = 1970-01-01T00:00:01Z
        "#
    ));
    let held = |who: &str, now| -> Vec<(String, Vec<Role>)> {
        let held = policy.bindings_of(&who.parse().unwrap(), "192.168.1.1".parse().unwrap(), now);
        held.into_iter().map(|held| (held.id.to_string(), held.roles.to_vec())).collect()
    };
    let by_group = ("by-group".to_owned(), vec![Role::Encrypter, Role::Decrypter]);
    assert_eq!(held(BILLING, 999), [by_group.clone(), ("by-name".to_owned(), vec![Role::Auditor])]);
    assert_eq!(held(BILLING, 1_000), [by_group]);
    assert_eq!(held("spiffe://example.com/other", 0), []);
    let elsewhere = policy.bindings_of(&BILLING.parse().unwrap(), "10.0.0.1".parse().unwrap(), 0);
    assert_eq!(elsewhere.iter().map(|held| &*held.id).collect::<Vec<_>>(), ["by-group"]);
}
