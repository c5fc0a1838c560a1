//! What is remembered, held against the same question decided anew, and against the whole set of
//! policies evaluated at once by Cedar, with none of our slicing in front of it.

use cedar_policy::{SlotId, Template};

use super::*;

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
const GROUPS: [&str; 2] = ["g", "h"];
const TENANTS: [&str; 3] = ["t", "u", "v"];
const PATTERNS: [&str; 5] = ["k", "k1", "k*", "kk*", "x"];
const NAMES: [&str; 5] = ["k", "k1", "kk", "x", "y"];
const NETWORKS: [&str; 4] = ["10.0.0.0/8", "10.1.0.0/16", "192.168.0.0/16", "2001:db8::/32"];
const ADDRESSES: [&str; 5] = ["10.1.2.3", "10.2.0.1", "192.168.7.7", "2001:db8::7", "203.0.113.9"];
/// A second or two after 1970, when bindings expire, and the moments around.
const MOMENTS: [UnixMillis; 6] = [0, 999, 1_000, 1_001, 1_999, 2_000];
const FORBIDS: [&str; 3] = [
    r#"forbid (principal, action == Action::"Decrypt", resource in Tenant::"tenants/u");"#,
    r#"forbid (principal == Principal::"spiffe://example.com/a", action, resource == Key::"tenants/t/keys/k1");"#,
    r#"forbid (principal, action == Action::"ListTenants", resource);"#,
];

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

    fn in_force(&self, net: IpAddr, now: UnixMillis) -> bool {
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
        forbids: &PolicySet,
        shipped: &PolicySet,
    ) -> Self {
        let mut bare = forbids.clone();
        for template in shipped.templates() {
            bare.add_template(Template::new_id(template, PolicyId::new(name_of(template)))).unwrap();
        }
        Self { thrown, groups, bare, sets: HashMap::new() }
    }

    /// Asks once. Returns whether it is allowed, and the first binding that is a reason.
    fn ask(&mut self, request: &Request<'_>) -> (bool, Option<usize>) {
        let names = Vocabulary::new();
        let in_force: Vec<bool> = self.thrown.iter().map(|b| b.in_force(request.net, request.now)).collect();
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
        let question = cedar_policy::Request::new(who, action, what, Context::empty(), None).unwrap();
        let answer = Authorizer::new().is_authorized(&question, set, &entities);
        let allowed = answer.decision() == cedar_policy::Decision::Allow;
        let number = |id: &PolicyId| AsRef::<str>::as_ref(id).split('/').next().and_then(|number| number.parse().ok());
        (allowed, answer.diagnostics().reason().filter_map(number).min().filter(|_| allowed))
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

#[test]
fn a_remembered_decision_is_the_decision_of_the_whole_set() {
    let (mut dice, templates) = (Dice(1), Templates::shipped().unwrap());
    let shipped: PolicySet = include_str!("../templates.cedar").parse().unwrap();
    let (mut questions, mut allowed, mut found) = (0, 0, 0);
    for _ in 0..50 {
        let count = 1 + dice.below(6);
        let mut thrown: Vec<Thrown> = (0..count).map(|_| Thrown::throw(&mut dice)).collect();
        let groups: Vec<(&str, Vec<&str>)> = GROUPS.iter().map(|name| (*name, dice.some(&PRINCIPALS))).collect();
        let mut text: String = groups
            .iter()
            .map(|(name, members)| format!("[[group]]\nname = \"{name}\"\nmembers = {members:?}\n"))
            .collect();
        text.extend(thrown.iter_mut().enumerate().map(|(id, binding)| binding.toml(id, &templates)));
        let forbids: PolicySet =
            FORBIDS.iter().filter(|_| dice.below(3) == 0).copied().collect::<String>().parse().unwrap();
        let policy =
            Policy::build(&text, "bindings.toml", &templates, forbids.clone()).unwrap_or_else(|e| panic!("{e}"));
        let mut whole = Whole::new(thrown, groups, &forbids, &shipped);
        // Few questions, each of them often, from several addresses and at several times.
        let asked: Vec<(Principal, Action, Resource)> = (0..12)
            .map(|_| {
                let action = dice.one(&Action::ALL[..Action::ALL.len() - 1]);
                // Now and then of a kind that the action is never asked of.
                let of_action = if dice.below(8) == 0 { dice.one(Action::ALL) } else { action };
                let resource = resource_of(of_action, dice.one(&TENANTS), dice.one(&NAMES));
                (dice.one(&PRINCIPALS).parse().unwrap(), action, resource)
            })
            .collect();
        for _ in 0..200 {
            let (principal, action, resource) = &asked[dice.below(asked.len())];
            let (action, net) = (*action, dice.one(&ADDRESSES).parse().unwrap());
            let request =
                Request { principal, strength: Strength::CERTIFICATE, net, now: dice.one(&MOMENTS), action, resource };
            let (expected, first) = whole.ask(&request);
            let before = policy.callers.get(principal).is_some_and(|caller| {
                let question = Question { caller: caller.number, action, resource, place: caller.place(net) };
                policy.remembered.find(&question, request.now).is_some()
            });
            let anew = policy.callers.get(principal).map(|caller| {
                let slice = policy.slice(caller, &request);
                policy.decide(caller, &request, &slice.grants)
            });
            let got = policy.authorize(&request);
            let again = policy.authorize(&request);
            assert_eq!(got, again, "{request:?}\n{text}");
            assert!(anew.is_none_or(|anew| anew == got), "{request:?}\n{text}");
            assert!(!got.errors);
            assert_eq!(
                (got.allowed, got.allowed.then(|| got.rule.to_string())),
                (expected, first.map(|n| format!("b{n}"))),
                "{request:?}\n{text}"
            );
            questions += 1;
            allowed += usize::from(expected);
            found += usize::from(before);
        }
    }
    assert_eq!(Action::ALL.last(), Some(&Action::GetCallerIdentity), "the one action that Cedar does not know");
    println!("decisions: {questions}, allowed {allowed}, found remembered {found}, different from the whole set 0");
    assert!(allowed > questions / 10 && found > allowed / 10, "the dice are not fair");
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
    let forbids = r#"forbid (principal, action == Action::"Decrypt", resource in Tenant::"tenants/acme");"#;
    let build = |forbids: &str| {
        Policy::build(&everything, "bindings.toml", &Templates::shipped().unwrap(), forbids.parse().unwrap()).unwrap()
    };
    let policy = build(forbids);
    for _ in 0..2 {
        let denied = decide(&policy, BILLING, HOME, 0, Action::Decrypt, &key("acme", "k"));
        assert_eq!((denied.allowed, denied.errors, &*denied.rule), (false, false, "policy0"));
        assert!(decide(&policy, BILLING, HOME, 0, Action::Encrypt, &key("acme", "k")).allowed);
        assert!(decide(&policy, BILLING, HOME, 0, Action::Decrypt, &key("acme2", "k")).allowed);
    }
    assert!(decide(&build(""), BILLING, HOME, 0, Action::Decrypt, &key("acme", "k")).allowed);
    // One that cannot be evaluated might have forbidden.
    let broken = build("forbid (principal, action, resource) when { resource.frozen };");
    let decision = decide(&broken, BILLING, HOME, 0, Action::Encrypt, &key("acme", "k"));
    assert_eq!((decision.allowed, decision.errors), (false, true));
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

/// Prints what a decision costs. There is nothing to fail: a figure of another machine is another.
#[test]
fn the_cost_of_a_decision_is_printed() {
    let application = billing_with("");
    let many: String = (0..100).map(|n| binding_of(&format!("b{n}"), &format!("t{n}"))).collect();
    let many = policy(&(many + &binding_of("last", "acme")));
    let administrator = policy(&format!(
        "[[binding]]\nid = \"all\"\nroles = [{}]\nprincipals = [\"{BILLING}\"]\ntenants = [\"*\"]\nkeys = [\"*\"]\nindexes = [\"*\"]\nnetworks = [\"10.0.0.0/8\"]",
        Role::ALL.map(|role| format!("\"{role}\"")).join(", ")
    ));
    let (own, strange) = (key("acme", "k"), key("acme", "strange"));
    let principal: Principal = BILLING.parse().unwrap();
    for (what, policy) in [("one binding", &application), ("101 bindings", &many), ("all roles", &administrator)] {
        let request = |resource| Request {
            principal: &principal,
            strength: Strength::CERTIFICATE,
            net: HOME.parse().unwrap(),
            now: 0,
            action: Action::Encrypt,
            resource,
        };
        let caller = &policy.callers[&principal];
        let anew = || {
            let slice = policy.slice(caller, &request(&own));
            policy.decide(caller, &request(&own), &slice.grants)
        };
        let slice = || policy.slice(caller, &request(&own)).grants.len();
        let (sliced, fresh) = (each(1_000, slice), each(200, anew));
        let found = each(5_000, || policy.authorize(&request(&own)));
        let denied = each(1_000, || policy.authorize(&request(&strange)));
        let denied =
            if policy.authorize(&request(&strange)).allowed { "allowed too".into() } else { format!("{denied} ns") };
        println!(
            "{what}: remembered {found} ns, anew {fresh} ns (of which the slice {sliced} ns), a key that is not its own {denied}"
        );
    }
}

/// Returns the nanoseconds of one run, in the best of several rounds: others use the machine too.
fn each<T>(times: u32, mut run: impl FnMut() -> T) -> u128 {
    let round = |_| {
        let began = tokio::time::Instant::now();
        for _ in 0..times {
            std::hint::black_box(run());
        }
        began.elapsed().as_nanos() / u128::from(times)
    };
    (0..8).map(round).min().unwrap_or_default()
}
