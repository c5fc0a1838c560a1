//! What is remembered, held against the same question decided anew, and against the whole set of
//! policies evaluated at once by Cedar, with none of our slicing in front of it.

use cedar_policy::{PolicyId, RestrictedExpression, SlotId, Template};

use super::*;
use crate::policy::network::Network;

/// A generator of numbers that look random, the same in every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        ((bits ^ (bits >> 31)) % end as u64) as usize
    }

    fn one<T: Copy>(&mut self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// Some of them, at least one.
    fn some<T: Copy>(&mut self, of: &[T]) -> Vec<T> {
        let must = self.below(of.len());
        let picked = of.iter().enumerate().filter(|(number, _)| *number == must || self.below(3) == 0);
        picked.map(|(_, one)| *one).collect()
    }
}

const PRINCIPALS: [&str; 3] = ["spiffe://example.com/a", "spiffe://example.com/b", "spiffe://example.com/c"];
/// One that no binding lists.
const STRANGER: &str = "spiffe://example.com/d";
const GROUPS: [&str; 2] = ["g", "h"];
const TENANTS: [&str; 3] = ["t", "u", "v"];
const PATTERNS: [&str; 5] = ["k", "k1", "k*", "kk*", "x"];
const NAMES: [&str; 5] = ["k", "k1", "kk", "x", "y"];
const NETWORKS: [&str; 4] = ["10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16", "2001:db8::/32"];
const ADDRESSES: [&str; 5] = ["10.1.2.3", "10.2.0.1", "192.168.7.7", "2001:db8::7", "203.0.113.9"];
/// A second or two after 1970, when bindings expire, and the moments around.
const MOMENTS: [UnixMillis; 6] = [0, 999, 1_000, 1_001, 1_999, 2_000];
/// Own policies, with each kind of scope and each thing that they may read.
const OWN: [&str; 9] = [
    r#"@id("own0") forbid (principal, action == Action::"Decrypt", resource in Tenant::"tenants/u");"#,
    r#"@id("own1") forbid (principal == Principal::"spiffe://example.com/a", action, resource == Key::"tenants/t/keys/k1");"#,
    r#"@id("own2") forbid (principal, action == Action::"ListTenants", resource) unless { context.auth.mfa };"#,
    r#"@id("own3") forbid (principal in Group::"g", action in [Action::"Encrypt", Action::"GetKey"], resource is Key in Tenant::"tenants/v") when { context.net.isInRange(ip("10.1.0.0/16")) };"#,
    r#"@id("own4") forbid (principal, action == Action::"Encrypt", resource) when { context.pairs has p && context.pairs.p == "2" };"#,
    r#"@id("own5") permit (principal == Principal::"spiffe://example.com/d", action == Action::"Encrypt", resource in Tenant::"tenants/t");"#,
    r#"@id("own6") permit (principal in Group::"h", action, resource is Key) when { context.auth.token && !context.net.isIpv6() };"#,
    r#"@id("own7") permit (principal, action == Action::"ListKeys", resource in Cluster::"cluster") when { context.pairs has q };"#,
    r#"@id("own8") permit (principal is Principal, action == Action::"GetIndexKey", resource is Index);"#,
];
const PAIR_NAMES: [&str; 2] = ["p", "q"];
const STRENGTHS: [Strength; 3] =
    [Strength::CERTIFICATE, Strength::TOKEN.and(Strength::MFA), Strength::CERTIFICATE.and(Strength::TOKEN)];

/// A binding as it was thrown, to be written into a file and to be read plainly.
struct Thrown {
    roles: Vec<Role>,
    principals: Vec<&'static str>,
    groups: Vec<&'static str>,
    /// Nothing means `*`.
    tenants: Option<Vec<&'static str>>,
    keys: Option<Vec<&'static str>>,
    indexes: Option<Vec<&'static str>>,
    networks: Option<Vec<&'static str>>,
    expires: Option<u64>,
    strength: Option<Strength>,
    /// Values of the pair `p`.
    context: Option<Vec<&'static str>>,
}

impl Thrown {
    fn throw(dice: &mut Dice) -> Self {
        let mut maybe = |of: &[&'static str]| if dice.below(2) == 0 { Some(dice.some(of)) } else { None };
        let (principals, groups) = (maybe(&PRINCIPALS), maybe(&GROUPS));
        let (tenants, keys, indexes, networks) =
            (maybe(&TENANTS), maybe(&PATTERNS), maybe(&PATTERNS), maybe(&NETWORKS));
        Self {
            roles: dice.some(&Role::ALL),
            principals: principals.unwrap_or_else(|| if groups.is_some() { Vec::new() } else { vec![PRINCIPALS[0]] }),
            groups: groups.unwrap_or_default(),
            tenants,
            keys: keys.map(|keys| if keys.len() > 3 { vec!["*"] } else { keys }),
            indexes,
            networks,
            expires: (dice.below(3) == 0).then(|| dice.one(&[1, 2])),
            strength: (dice.below(4) == 0).then(|| dice.one(&STRENGTHS)),
            context: (dice.below(4) == 0).then(|| dice.some(&["1", "2"])),
        }
    }

    /// As TOML; roles that would give nothing are left out, since a file with them is refused.
    fn toml(&mut self, id: usize, templates: &Templates) -> String {
        let list = |names: &[&str]| format!("{names:?}");
        let covered = |level| match level {
            Level::Cluster => self.tenants.is_none(),
            Level::Tenants => true,
            Level::Keys => self.keys.is_some(),
            Level::Indexes => self.indexes.is_some(),
        };
        self.roles.retain(|&role| templates.levels(role).any(covered));
        if self.roles.is_empty() {
            self.roles.push(Role::Auditor);
        }
        let used = |level| self.roles.iter().any(|&role| templates.levels(role).any(|of| of == level));
        self.keys = self.keys.take().filter(|_| used(Level::Keys));
        self.indexes = self.indexes.take().filter(|_| used(Level::Indexes));
        let roles: Vec<&str> = self.roles.iter().map(|role| role.as_str()).collect();
        let mut text = format!("[[binding]]\nid = \"b{id}\"\nroles = {}\n", list(&roles));
        text += &format!("tenants = {}\n", list(self.tenants.as_deref().unwrap_or(&["*"])));
        for (field, names) in [("principals", &self.principals), ("groups", &self.groups)] {
            if !names.is_empty() {
                text += &format!("{field} = {}\n", list(names));
            }
        }
        for (field, names) in [("keys", &self.keys), ("indexes", &self.indexes), ("networks", &self.networks)] {
            if let Some(names) = names {
                text += &format!("{field} = {}\n", list(names));
            }
        }
        if let Some(second) = self.expires {
            text += &format!("expires = 1970-01-01T00:00:0{second}Z\n");
        }
        if let Some(strength) = self.strength {
            text += &format!("strength = {:?}\n", strength.names().collect::<Vec<_>>());
        }
        if let Some(values) = &self.context {
            text += &format!("context = {{ p = {values:?} }}\n");
        }
        text
    }

    fn covers(&self, resource: &Resource) -> bool {
        let plain = |patterns: &Option<Vec<&str>>, name: &str| {
            patterns.as_ref().is_some_and(|patterns| {
                patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
                    Some(prefix) => name.starts_with(prefix),
                    None => *pattern == name,
                })
            })
        };
        let tenant = |name: &TenantName| self.tenants.as_ref().is_none_or(|names| names.contains(&name.as_str()));
        match resource {
            Resource::Cluster => self.tenants.is_none(),
            Resource::Tenant(of) => tenant(of),
            Resource::Key(of, key) => tenant(of) && plain(&self.keys, key.as_str()),
            Resource::Index(of, index) => tenant(of) && plain(&self.indexes, index.as_str()),
        }
    }

    fn in_force(&self, Request { net, now, strength, pairs, .. }: Request<'_>) -> bool {
        let value = pairs.and_then(|pairs| pairs.get("p"));
        let meets = |values: &Vec<&str>| value.is_some_and(|value| values.contains(&value.as_str()));
        if !self.strength.is_none_or(|wanted| strength.has(wanted)) || !self.context.as_ref().is_none_or(meets) {
            return false;
        }
        let inside = |network: &&str| network.parse::<Network>().unwrap().contains(net);
        self.expires.is_none_or(|second| now < second * 1_000)
            && self.networks.as_ref().is_none_or(|networks| networks.iter().any(inside))
    }
}

/// All bindings, to be evaluated without slicing: those in force are linked for everyone they list,
/// in one set with all that forbids.
struct Whole {
    thrown: Vec<Thrown>,
    groups: Vec<(&'static str, Vec<&'static str>)>,
    /// The templates, and what forbids.
    bare: PolicySet,
    /// By which bindings are in force.
    sets: HashMap<Vec<bool>, PolicySet>,
}

impl Whole {
    fn new(
        thrown: Vec<Thrown>,
        groups: Vec<(&'static str, Vec<&'static str>)>,
        own: &PolicySet,
        shipped: &PolicySet,
    ) -> Self {
        let mut bare = PolicySet::new();
        for policy in own.policies() {
            bare.add(policy.new_id(PolicyId::new(policy.annotation("id").unwrap()))).unwrap();
        }
        for template in shipped.templates() {
            bare.add_template(Template::new_id(template, PolicyId::new(name_of(template)))).unwrap();
        }
        Self { thrown, groups, bare, sets: HashMap::new() }
    }

    /// Asks once. Returns the rule that allows it: the first binding that is a reason, else the first own policy; or
    /// whether anything forbids it.
    fn ask(&mut self, request: &Request<'_>) -> Result<String, bool> {
        let names = Vocabulary::new();
        let in_force: Vec<bool> = self.thrown.iter().map(|b| b.in_force(*request)).collect();
        let set = self.sets.entry(in_force.clone()).or_insert_with(|| link(&self.thrown, &in_force, &self.bare));
        let mut parents = HashSet::new();
        match request.resource {
            Resource::Cluster => {}
            Resource::Tenant(_) => drop(parents.insert(names.cluster())),
            Resource::Key(tenant, _) | Resource::Index(tenant, _) => {
                parents.extend([names.tenant(tenant), names.cluster()]);
            }
        }
        for (number, _) in self.thrown.iter().enumerate().filter(|(_, binding)| binding.covers(request.resource)) {
            let id = format!("b{number}");
            match request.resource {
                Resource::Cluster => {}
                Resource::Tenant(_) => drop(parents.insert(names.tenant_scope(&id))),
                Resource::Key(..) => drop(parents.insert(names.key_scope(&id))),
                Resource::Index(..) => drop(parents.insert(names.index_scope(&id))),
            }
        }
        let of = self.groups.iter().filter(|(_, members)| members.contains(&request.principal.as_str()));
        let of = of.map(|(name, _)| names.group(name)).collect();
        let principal = Entity::new_no_attrs(names.principal(request.principal), of);
        let resource = Entity::new_no_attrs(names.resource(request.resource), parents);
        let (who, what) = (principal.uid(), resource.uid());
        let entities = Entities::from_entities([principal, resource], None).unwrap();
        let action = names.action(request.action).unwrap().clone();
        let flag = |one| RestrictedExpression::new_bool(request.strength.has(one));
        let auth = [
            ("certificate".into(), flag(Strength::CERTIFICATE)),
            ("token".into(), flag(Strength::TOKEN)),
            ("mfa".into(), flag(Strength::MFA)),
        ];
        let pairs = request.pairs.into_iter().flatten().filter(|(name, _)| PAIR_NAMES.contains(&name.as_str()));
        let pairs = pairs.map(|(name, value)| (name.clone(), RestrictedExpression::new_string(value.clone())));
        let context = Context::from_pairs([
            ("net".into(), RestrictedExpression::new_ip(request.net.to_string())),
            ("auth".into(), RestrictedExpression::new_record(auth).unwrap()),
            ("pairs".into(), RestrictedExpression::new_record(pairs).unwrap()),
        ]);
        let question = cedar_policy::Request::new(who, action, what, context.unwrap(), None).unwrap();
        let answer = Authorizer::new().is_authorized(&question, set, &entities);
        assert!(answer.diagnostics().errors().next().is_none());
        let mut reasons: Vec<String> = answer.diagnostics().reason().map(|id| id.to_string()).collect();
        if answer.decision() == cedar_policy::Decision::Deny {
            return Err(!reasons.is_empty());
        }
        // A number before a word.
        reasons
            .sort_by_key(|id| (id.split('/').next().and_then(|n| n.parse::<usize>().ok()).unwrap_or(99), id.clone()));
        let first = reasons[0].split('/').next().unwrap();
        Ok(if first.starts_with("own") { first.to_owned() } else { format!("b{first}") })
    }
}

fn name_of(template: &Template) -> String {
    format!("{}.{}", template.annotation("role").unwrap(), template.annotation("level").unwrap())
}

fn link(thrown: &[Thrown], in_force: &[bool], bare: &PolicySet) -> PolicySet {
    let (names, mut set) = (Vocabulary::new(), bare.clone());
    for (number, binding) in thrown.iter().enumerate().filter(|(number, _)| in_force[*number]) {
        let id = format!("b{number}");
        let principals = binding.principals.iter().map(|name| names.principal(&name.parse().unwrap()));
        let listed = principals.chain(binding.groups.iter().map(|name| names.group(name)));
        for (place, grantee) in listed.enumerate() {
            for template in bare.templates() {
                let (role, level) = (template.annotation("role").unwrap(), template.annotation("level").unwrap());
                let scope = match level {
                    "cluster" => binding.tenants.is_none().then(|| names.cluster()),
                    "tenants" => Some(names.tenant_scope(&id)),
                    "keys" => Some(names.key_scope(&id)),
                    _ => Some(names.index_scope(&id)),
                };
                let Some(scope) = scope.filter(|_| binding.roles.iter().any(|of| of.as_str() == role)) else {
                    continue;
                };
                let slots = HashMap::from([(SlotId::principal(), grantee.clone()), (SlotId::resource(), scope)]);
                let link = PolicyId::new(format!("{number}/{place}/{role}.{level}"));
                set.link(template.id().clone(), link, slots).unwrap();
            }
        }
    }
    set
}

/// A grant as it was thrown.
struct ThrownGrant {
    granted: Granted,
    role: Role,
}

impl ThrownGrant {
    fn throw(dice: &mut Dice, number: usize) -> Self {
        let role = dice.one(&[Role::Decrypter, Role::Encrypter, Role::KeyAdmin, Role::Auditor]);
        let from = dice.one(&[0, 1_000]);
        let granted = Granted {
            id: format!("grant{number}").into(),
            principal: dice.one(&[PRINCIPALS[0], PRINCIPALS[1], STRANGER]).parse().unwrap(),
            roles: [role].into(),
            tenant: dice.one(&TENANTS).parse().unwrap(),
            keys: (dice.below(3) > 0).then(Names::every),
            indexes: None,
            from: (from > 0).then_some(from),
            expires: dice.one(&[1_000, 2_000, 3_000]),
        };
        Self { granted, role }
    }

    fn allows(&self, request: &Request<'_>, templates: &Templates) -> bool {
        let Granted { principal, tenant, keys, from, expires, .. } = &self.granted;
        let covers = match request.resource {
            Resource::Cluster | Resource::Index(..) => false,
            Resource::Tenant(of) => of == tenant,
            Resource::Key(of, _) => of == tenant && keys.is_some(),
        };
        let level = Level::of(request.resource);
        principal == request.principal
            && covers
            && templates.gives(self.role, level, request.action)
            && (from.unwrap_or(0)..*expires).contains(&request.now)
    }
}

#[test]
fn a_remembered_decision_is_the_decision_of_the_whole_set() {
    let (mut dice, templates) = (Dice(1), Templates::shipped().unwrap());
    let shipped: PolicySet = include_str!("../templates.cedar").parse().unwrap();
    let pair_names = PairNames::of(&PAIR_NAMES).unwrap();
    let (mut questions, mut allowed, mut by_own, mut by_grant, mut found) = (0, 0, 0, 0, 0);
    for round in 0..80 {
        let count = 1 + dice.below(6);
        let mut thrown: Vec<Thrown> = (0..count).map(|_| Thrown::throw(&mut dice)).collect();
        let groups: Vec<(&str, Vec<&str>)> = GROUPS.iter().map(|name| (*name, dice.some(&PRINCIPALS))).collect();
        let mut text: String = groups
            .iter()
            .map(|(name, members)| format!("[[group]]\nname = \"{name}\"\nmembers = {members:?}\n"))
            .collect();
        text.extend(thrown.iter_mut().enumerate().map(|(id, binding)| binding.toml(id, templates)));
        // In every other round there are none, so that what bindings alone depend on is told apart.
        let own: String = OWN.iter().filter(|_| round % 2 == 0 && dice.below(3) == 0).copied().collect();
        let own_files = [File { label: "own.cedar", text: &own }];
        let files = Files {
            bindings: File { label: "bindings.toml", text: &text },
            own: if own.is_empty() { &[] } else { &own_files },
            pairs: &pair_names,
        };
        let policy = Policy::read(&files).unwrap_or_else(|e| panic!("{e}\n{text}"));
        let mut whole = Whole::new(thrown, groups, &own.parse().unwrap(), &shipped);
        let grants: Vec<ThrownGrant> = (0..2 + dice.below(6)).map(|n| ThrownGrant::throw(&mut dice, n)).collect();
        let in_force = InForce::new(Policy::read(&files).unwrap());
        in_force.set_grants(grants.iter().map(|grant| grant.granted.clone()).collect()).unwrap();
        // Few questions, each of them often, from several addresses and at several times.
        let asked: Vec<(Principal, Action, Resource)> = (0..12)
            .map(|_| {
                let often = [Action::Encrypt, Action::Decrypt, Action::ListKeys, Action::GetKey];
                let all = &Action::ALL[..Action::ALL.len() - 1];
                let action = if dice.below(2) == 0 { dice.one(&often) } else { dice.one(all) };
                // Now and then of a kind that the action is never asked of.
                let of_action = if dice.below(8) == 0 { dice.one(Action::ALL) } else { action };
                let resource = resource_of(of_action, dice.one(&TENANTS), dice.one(&NAMES));
                let who = if dice.below(6) == 0 { STRANGER } else { dice.one(&PRINCIPALS) };
                (who.parse().unwrap(), action, resource)
            })
            .collect();
        let contexts: [Option<Pairs>; 5] =
            [&[][..], &[("p", "1")], &[("p", "2")], &[("p", "3"), ("q", "")], &[("z", "1")]]
                .map(|pairs| Some(pairs.iter().map(|(n, v)| ((*n).into(), (*v).into())).collect()));
        for _ in 0..200 {
            let (principal, action, resource) = &asked[dice.below(asked.len())];
            let (action, net) = (*action, dice.one(&ADDRESSES).parse().unwrap());
            let pairs = if dice.below(4) == 0 { None } else { contexts[dice.below(contexts.len())].as_ref() };
            let (strength, now) = (dice.one(&STRENGTHS), dice.one(&MOMENTS));
            let request = Request { principal, strength, net, now, action, resource, pairs };
            let expected = whole.ask(&request);
            let caller = policy.callers.get(principal);
            let before = caller.is_some_and(|caller| {
                policy.remembered.find(&policy.question(caller, &request), request.now).is_some()
            });
            let anew = policy.anew(&request);
            let got = policy.authorize(&request);
            let again = policy.authorize(&request);
            assert_eq!(got, again, "{request:?}\n{text}{own}");
            assert_eq!(
                got.allowed.then_some(&got.rule),
                anew.allowed.then_some(&anew.rule),
                "{request:?}\n{text}{own}"
            );
            assert!(!got.errors);
            assert_eq!(got.allowed.then(|| got.rule.to_string()), expected.clone().ok(), "{request:?}\n{text}{own}");
            // The same with grants beside it, held against their plain reading.
            let expected_with = expected.clone().or_else(|forbidden| {
                let grant = grants.iter().find(|grant| grant.allows(&request, templates));
                let staff = |tenant: &TenantName| {
                    let resource = &Resource::Tenant(tenant.clone());
                    let asks = Request { action: Action::RequestGrant, resource, pairs: None, ..request };
                    whole.ask(&asks).is_ok()
                };
                let is_staff = resource.tenant().is_some_and(staff);
                grant.filter(|_| is_staff && !forbidden).map(|grant| grant.granted.id.to_string()).ok_or(())
            });
            let with = in_force.authorize(&request);
            assert_eq!(with, in_force.authorize(&request));
            assert_eq!(
                with.allowed.then(|| with.rule.to_string()),
                expected_with.clone().ok(),
                "{request:?}\n{text}{own}"
            );
            questions += 2;
            allowed += usize::from(expected.is_ok()) + usize::from(expected_with.is_ok());
            by_own += usize::from(expected.is_ok_and(|rule| rule.starts_with("own")));
            by_grant += usize::from(expected_with.is_ok_and(|rule| rule.starts_with("grant")));
            found += usize::from(before);
        }
    }
    assert_eq!(Action::ALL.last(), Some(&Action::GetCallerIdentity), "the one action that Cedar does not know");
    println!(
        "decisions: {questions}, allowed {allowed} (own policies {by_own}, grants {by_grant}), found remembered {found}, \
         different from the whole set 0"
    );
    assert!(allowed > questions / 10 && found > allowed / 10 && by_own > 100 && by_grant > 50, "the dice are not fair");
}

#[test]
fn a_remembered_permission_ends_at_the_very_millisecond_its_binding_expires() {
    let of = key("acme", "k");
    let policy = policy(&format!(
        "{}expires = 1970-01-01T00:00:01Z\n{}",
        binding_of("first", "acme"),
        binding_of("second", "acme").replace("[\"k\"]", "[\"other\"]") + "expires = 1970-01-01T00:00:00.5Z\n"
    ));
    let at = |now| decide(&policy, BILLING, HOME, now, Action::Encrypt, &of).allowed;
    // Asked before, so that it is remembered; and the clock may step back.
    for now in [0, 499, 500, 998, 999, 1_000, 1_001, 999, 1_000, 499, u64::MAX, 0] {
        assert_eq!(at(now), now < 1_000, "{now}");
        assert_eq!(at(now), now < 1_000, "{now}");
    }
}

fn binding_of(id: &str, tenant: &str) -> String {
    format!(
        "[[binding]]\nid = \"{id}\"\nroles = [\"encrypter\"]\nprincipals = [\"{BILLING}\"]\ntenants = [\"{tenant}\"]\nkeys = [\"k\"]\n"
    )
}

#[test]
fn what_forbids_is_asked_before_what_permits() {
    let everything = format!(
        "[[binding]]\nid = \"b\"\nroles = [\"encrypter\", \"decrypter\"]\nprincipals = [\"{BILLING}\"]\ntenants = [\"*\"]\nkeys = [\"*\"]"
    );
    let forbids =
        r#"@id("no-acme") forbid (principal, action == Action::"Decrypt", resource in Tenant::"tenants/acme");"#;
    let build = |own: &str| {
        let bindings = File { label: "bindings.toml", text: &everything };
        let files = Files { bindings, own: &[], pairs: &PairNames::default() };
        Policy::build(&files, Templates::shipped().unwrap(), OwnPolicy::unvalidated(own)).unwrap()
    };
    let policy = build(forbids);
    for _ in 0..2 {
        let denied = decide(&policy, BILLING, HOME, 0, Action::Decrypt, &key("acme", "k"));
        assert_eq!((denied.allowed, denied.errors, &*denied.rule), (false, false, "no-acme"));
        assert!(decide(&policy, BILLING, HOME, 0, Action::Encrypt, &key("acme", "k")).allowed);
        assert!(decide(&policy, BILLING, HOME, 0, Action::Decrypt, &key("acme2", "k")).allowed);
    }
    assert!(decide(&build(""), BILLING, HOME, 0, Action::Decrypt, &key("acme", "k")).allowed);
    // One that cannot be evaluated might have forbidden.
    for effect in ["forbid", "permit"] {
        let broken = build(&format!("@id(\"x\") {effect} (principal, action, resource) when {{ resource.frozen }};"));
        let decision = decide(&broken, BILLING, HOME, 0, Action::Encrypt, &key("acme", "k"));
        // What permits is asked after the binding that allows it.
        assert_eq!((decision.allowed, decision.errors), (effect == "permit", effect == "forbid"));
        let decision = decide(&broken, SHIPPING, HOME, 0, Action::Encrypt, &key("acme", "k"));
        assert_eq!((decision.allowed, decision.errors), (false, effect == "permit"));
    }
}

#[test]
fn denials_and_errors_are_not_remembered_and_made_up_names_do_not_grow_it() {
    let narrow = billing_with("");
    for number in 0..1_000 {
        assert!(!may(&narrow, BILLING, Action::Encrypt, &key("acme", &format!("k{number}"))));
        assert!(!may(&narrow, BILLING, Action::CreateKey, &key("acme", "k")));
        assert!(!may(&narrow, SHIPPING, Action::Encrypt, &key("acme", "k")));
    }
    assert_eq!(narrow.remembered.len(), 0);
    let wide = of_role(Role::Encrypter, true);
    for number in 0..crate::policy::remembered::PLACES + 1_000 {
        assert!(may(&wide, BILLING, Action::Encrypt, &key("acme", &format!("k{number}"))));
    }
    assert!(wide.remembered.len() <= crate::policy::remembered::PLACES);
}

#[test]
fn callers_with_more_networks_than_bits_are_told_apart_by_address() {
    let networks: Vec<String> = (0..70).map(|n| format!("\"10.{n}.0.0/16\"")).collect();
    let policy = billing_with(&format!("networks = [{}]", networks.join(", ")));
    let of = key("acme", "k");
    for _ in 0..2 {
        for n in 0..80 {
            let allowed = decide(&policy, BILLING, &format!("10.{n}.1.1"), 0, Action::Encrypt, &of).allowed;
            assert_eq!(allowed, n < 70, "{n}");
        }
    }
}
