//! The users' own policies: what they may say, and every mistake in them with its place.

use super::*;
use crate::policy::check as check_files;

const BINDINGS: &str = r#"
[[group]]
name = "nobody-binds-it"
members = ["spiffe://example.com/member"]
[[binding]]
id = "all"
roles = ["encrypter", "decrypter"]
principals = ["spiffe://example.com/billing"]
tenants = ["*"]
keys = ["*"]
"#;

fn with(own: &str) -> Policy {
    let pairs = PairNames::of(&["purpose"]).unwrap();
    let own = [File { label: "own.cedar", text: own }];
    let bindings = File { label: "bindings.toml", text: BINDINGS };
    Policy::read(&Files { bindings, own: &own, pairs: &pairs }).unwrap_or_else(|error| panic!("{error}"))
}

#[test]
fn an_unknown_principal_is_allowed_by_an_own_policy_only() {
    let own = r#"@id("shipping") permit (principal == Principal::"spiffe://example.com/shipping", action == Action::"Encrypt", resource in Tenant::"tenants/acme");"#;
    let policy = with(own);
    assert_eq!(rule(&policy, SHIPPING, Action::Encrypt, &key("acme", "k")).as_deref(), Some("shipping"));
    assert_eq!(rule(&policy, SHIPPING, Action::Decrypt, &key("acme", "k")), None);
    assert_eq!(rule(&policy, SHIPPING, Action::Encrypt, &key("globex", "k")), None);
    assert_eq!(rule(&policy, "spiffe://example.com/other", Action::Encrypt, &key("acme", "k")), None);
    // Bindings come first.
    let policy = with(&own.replace("shipping\", action", "billing\", action"));
    assert_eq!(rule(&policy, BILLING, Action::Encrypt, &key("acme", "k")).as_deref(), Some("all"));
}

#[test]
fn a_group_that_no_binding_lists_can_be_asked_for() {
    let policy =
        with(r#"@id("g") permit (principal in Group::"nobody-binds-it", action == Action::"GetKey", resource);"#);
    assert_eq!(rule(&policy, "spiffe://example.com/member", Action::GetKey, &key("acme", "k")).as_deref(), Some("g"));
    assert_eq!(rule(&policy, BILLING, Action::GetKey, &key("acme", "k")), None);
}

#[test]
fn what_forbids_is_the_rule_and_beats_every_permit() {
    let policy = with(
        r#"// Night shift.
        @id("office-only")
        forbid (principal, action == Action::"Decrypt", resource)
        unless { context.net.isInRange(ip("10.0.0.0/8")) && context.auth.certificate };
        @id("billing-purpose")
        forbid (principal, action == Action::"Encrypt", resource)
        when { context.pairs has purpose && context.pairs.purpose != "billing" };"#,
    );
    let of = key("acme", "k");
    for _ in 0..2 {
        assert!(decide(&policy, BILLING, HOME, 0, Action::Decrypt, &of).allowed);
        let denied = decide(&policy, BILLING, "192.168.1.1", 0, Action::Decrypt, &of);
        assert_eq!((denied.allowed, &*denied.rule), (false, "office-only"));
    }
    for (purpose, allowed) in [("billing", true), ("other", false), ("billing", true)] {
        let pairs = Pairs::from([("purpose".to_owned(), purpose.to_owned())]);
        let principal = BILLING.parse().unwrap();
        let (net, strength, action) = (HOME.parse().unwrap(), Strength::CERTIFICATE, Action::Encrypt);
        let asked =
            Request { principal: &principal, strength, net, now: 0, action, resource: &of, pairs: Some(&pairs) };
        assert_eq!(policy.authorize(&asked).allowed, allowed, "{purpose}");
    }
}

#[test]
fn every_mistake_has_its_place() {
    let told = |text: &str| {
        let all = check_files(&[("bindings.toml", BINDINGS), ("own.cedar", text)], &["purpose"]);
        assert!(!all.is_empty(), "{text} was taken");
        all.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let mut wrong = Vec::new();
    for (text, begins, says) in [
        (
            "\n  permit (principal, action resource);",
            "own.cedar:2:29: not a policy: unexpected token `resource`",
            "@id",
        ),
        ("permit (principal, action, resource)", "own.cedar:1:37: not a policy: unexpected end of input", ""),
        (
            "\n\n permit (principal, action, resource);",
            "own.cedar:3:2: a policy without @id: its id is the rule",
            "write @id",
        ),
        (r#"@id("a b") permit (principal, action, resource);"#, "own.cedar:1:1: bad id \"a b\":", "choose another"),
        (r#"@id("default") permit (principal, action, resource);"#, "own.cedar:1:1: id \"default\" is taken:", ""),
        (
            r#"@id("all") permit (principal, action, resource);"#,
            "own.cedar:1:1: id \"all\" is taken: a binding has it;",
            "",
        ),
        (
            "@id(\"x\") permit (principal, action, resource);\n@id(\"x\") forbid (principal, action, resource);",
            "own.cedar:2:1: id \"x\" is taken: it stands in own.cedar line 1;",
            "rename or remove",
        ),
        (
            r#"@id("x") permit (principal == ?principal, action, resource);"#,
            "own.cedar:1:31: a template: an own policy has no slots;",
            "a binding",
        ),
        // A condition about what cannot be would never hold: a forbid would forbid nothing.
        (
            r#"@id("x") forbid (principal, action, resource) when { principal in Group::"contracters" };"#,
            "own.cedar:1:1: a policy names \"Group::",
            "it would never match",
        ),
        (
            r#"@id("x") forbid (principal, action, resource) when { resource in Tenant::"acme" };"#,
            "own.cedar:1:1: a policy names \"Tenant::",
            "tenants/t",
        ),
        (
            r#"@id("x") permit (principal, action, resource) unless { principal == Principal::"billing" };"#,
            "own.cedar:1:1: a policy names \"Principal::",
            "a SPIFFE ID",
        ),
        (
            r#"@id("x") permit (principal, action, resource) when { context.pairs has porpose };"#,
            "own.cedar:1:",
            "policy \"x\" ",
        ),
        (
            r#"@id("x") permit (principal, action, resource) when { context.pairs.purpose == "a" };"#,
            "own.cedar:1:54: policy \"x\" does not fit the schema:",
            "has",
        ),
        (
            r#"@id("x") permit (principal, action == Action::"Encrypt", resource) when { resource.owner == principal };"#,
            "own.cedar:1:75: policy \"x\" does not fit the schema:",
            "owner",
        ),
        (
            r#"@id("x") permit (principal, action == Action::"Encrypted", resource);"#,
            "own.cedar:1:39: policy \"x\" does not fit the schema:",
            "Encrypt",
        ),
        (r#"@id("x") forbid (principal, action, resource in KeyScope::"all");"#, "own.cedar:1:", "KeyScope"),
        (
            r#"@id("x") permit (principal == Principal::"billing", action, resource);"#,
            "own.cedar:1:1: bad principal \"billing\":",
            "SPIFFE",
        ),
        (
            r#"@id("x") permit (principal in Group::"nobody", action, resource);"#,
            "own.cedar:1:1: unknown group \"nobody\":",
            "add the group",
        ),
        (
            r#"@id("x") permit (principal, action, resource == Key::"acme/k");"#,
            "own.cedar:1:1: policy \"x\": ",
            "is no resource",
        ),
        (
            r#"@id("x") permit (principal, action == Action::"Encrypt", resource is Tenant);"#,
            "own.cedar:1:1: policy \"x\" is suspect:",
            "",
        ),
    ] {
        let all = told(text);
        if !(all[0].starts_with(begins) && all[0].contains(says)) {
            wrong.push(format!("{text}\n  wanted {begins} ... {says}\n  got    {}", all[0]));
        }
        assert!(all[0].len() < 900 && !all[0].contains('\n'), "{}", all[0]);
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    // Each policy's own mistake, and not only the first.
    assert_eq!(told("permit (principal);\n@id(\"y\") permit (principal, action, resource);\nforbid;").len(), 2);
}

#[test]
fn files_and_policies_are_bounded() {
    let one = |n: usize| format!("@id(\"p{n}\") forbid (principal, action == Action::\"Lock\", resource);\n");
    let many = |count: usize| (0..count).map(one).collect::<String>();
    assert_eq!(check_files(&[("a.cedar", &many(1_000))], &[]), []);
    let beyond = check_files(&[("a.cedar", &many(1_001))], &[]);
    assert_eq!(
        beyond[0].to_string(),
        "a.cedar:1001:1: one policy too many: there are at most 1000 in all files; say it with fewer policies, or with bindings"
    );
    let large = format!("// {}\n", "x".repeat(own::OWN_FILE_BYTES_MAX));
    assert!(check_files(&[("a.cedar", &large)], &[])[0].what.contains("bytes"));
    let files: Vec<(String, String)> = (0..=own::OWN_FILES_MAX).map(|n| (format!("{n}.cedar"), one(n))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(label, text)| (&**label, &**text)).collect();
    assert_eq!(check_files(&files, &[])[0].what, "101 files of policies");
}

#[test]
fn a_check_takes_bindings_and_policies_by_their_names() {
    let good = r#"@id("x") forbid (principal, action, resource) when { context.pairs has p };"#;
    assert_eq!(check_files(&[("b.toml", BINDINGS), ("a.cedar", good)], &["p"]), []);
    assert_eq!(check_files(&[("a.cedar", good)], &[]).len(), 1);
    let shown = |files: &[(&str, &str)], pairs: &[&str]| check_files(files, pairs)[0].to_string();
    assert_eq!(
        shown(&[("a.json", "{}")], &[]),
        "a.json: neither bindings nor policies: its name ends in neither .toml nor .cedar; rename it, or leave it out"
    );
    assert_eq!(
        shown(&[("a.toml", ""), ("b.toml", "")], &[]),
        "b.toml: a second file of bindings: a policy has one file of bindings; check them one by one"
    );
    assert!(shown(&[], &["p", "p"]).starts_with("policy.context_pairs: bad names of pairs: one is there twice;"));
}

#[test]
fn the_print_is_of_everything_that_decides() {
    let of = |bindings: &str, own: &[(&str, &str)], pairs: &[&str]| {
        let own: Vec<File<'_>> = own.iter().map(|&(label, text)| File { label, text }).collect();
        let bindings = File { label: "b.toml", text: bindings };
        Policy::read(&Files { bindings, own: &own, pairs: &PairNames::of(pairs).unwrap() }).unwrap().print()
    };
    let one = "@id(\"x\") forbid (principal, action, resource);";
    let all = [
        of("", &[], &[]),
        of("# c", &[], &[]),
        of("", &[], &["p"]),
        of("", &[], &["q"]),
        of("", &[], &["p", "q"]),
        of("", &[("a.cedar", one)], &[]),
        of("", &[("b.cedar", one)], &[]),
        of("", &[("a.cedar", &format!("{one} "))], &[]),
        of("", &[("a.cedar", one), ("b.cedar", "")], &[]),
    ];
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), all.len());
    assert_eq!(of("", &[], &[]), all[0]);
}
