//! The evaluator against an independent one, and the rules one by one.

use rand::{RngExt as _, SeedableRng as _, rngs::StdRng, seq::IndexedRandom as _};

use super::*;
use crate::types::{Claims, CredentialName, Selector};

const SUBJECTS: [&str; 8] = [
    "spiffe://prod/ns/a",
    "spiffe://prod/ns/a/b",
    "spiffe://dev/ns/a",
    "jwt:k8s/system:serviceaccount:a:b",
    "jwt:other/system:serviceaccount:a:b",
    "key:ci",
    "uid:1000",
    "anonymous",
];
const SUBJECT_PATTERNS: [&str; 9] = [
    "spiffe://prod/ns/*",
    "spiffe://prod/**",
    "spiffe://dev/ns/a",
    "jwt:k8s/**",
    "jwt:k8s/system:serviceaccount:*:b",
    "key:*",
    "key:c",
    "uid:1000",
    "anonymous",
];
const NAMES: [&str; 5] = ["crm", "crm/prod", "crm/prod/eu", "github-ci", "crm-x"];
const NAME_PATTERNS: [&str; 6] = ["crm", "crm/*", "crm/**", "**", "*-*", "github-*"];
const ITEMS: [&str; 5] = ["a", "b", "repo:read", "repo:write", "https://x/y"];
const ITEM_PATTERNS: [&str; 4] = ["a", "repo:*", "**", "https://x/*"];

fn pick<'a>(rng: &mut StdRng, from: &[&'a str], most: usize) -> Vec<&'a str> {
    let count = rng.random_range(0..=most);
    (0..count).filter_map(|_| from.choose(rng).copied()).collect()
}

/// A grant in the words of the reference, which knows nothing of ours.
#[derive(Clone, Debug)]
struct Plain {
    subjects: Vec<&'static str>,
    claim: Option<&'static str>,
    credentials: Vec<&'static str>,
    actions: Vec<Action>,
    scopes: Option<Vec<&'static str>>,
    audiences: Option<Vec<&'static str>>,
    resources: Option<Vec<&'static str>>,
}

impl Plain {
    fn random(rng: &mut StdRng) -> Self {
        let limit = |rng: &mut StdRng| rng.random_bool(0.4).then(|| pick(rng, &ITEM_PATTERNS, 2));
        let (scopes, audiences, resources) = (limit(rng), limit(rng), limit(rng));
        Self {
            subjects: pick(rng, &SUBJECT_PATTERNS, 3),
            claim: rng.random_bool(0.3).then(|| *["admins", "users"].choose(rng).expect("not empty")),
            credentials: pick(rng, &NAME_PATTERNS, 2),
            actions: Action::ALL.into_iter().filter(|_| rng.random_bool(0.5)).map(|(_, action)| action).collect(),
            scopes,
            audiences,
            resources,
        }
    }

    fn grant(&self, number: usize) -> Grant {
        let patterns = |list: &Vec<&str>| list.iter().map(|text| Pattern::parse(text, b'/').expect(text)).collect();
        Grant {
            name: number.to_string().into(),
            subjects: self.subjects.iter().map(|text| SubjectPattern::parse(text).expect(text)).collect(),
            claims: self.claim.iter().map(|value| ("groups".to_owned(), vec![(*value).to_owned()])).collect(),
            credentials: patterns(&self.credentials),
            actions: self.actions.iter().fold(Actions::default(), |set, action| set.with(*action)),
            scopes: self.scopes.as_ref().map(patterns),
            audiences: self.audiences.as_ref().map(patterns),
            resources: self.resources.as_ref().map(patterns),
        }
    }
}

/// A question in the words of the reference.
#[derive(Clone, Debug)]
struct Asked {
    subject: &'static str,
    groups: Vec<&'static str>,
    action: Action,
    credential: Option<&'static str>,
    token: Option<(Vec<&'static str>, Option<&'static str>, Vec<&'static str>)>,
}

impl Asked {
    fn random(rng: &mut StdRng) -> Self {
        let credential = rng.random_bool(0.9).then(|| *NAMES.choose(rng).expect("not empty"));
        let token = (credential.is_some() && rng.random_bool(0.8)).then(|| {
            let audience = rng.random_bool(0.5).then(|| *ITEMS.choose(rng).expect("not empty"));
            (pick(rng, &ITEMS, 2), audience, pick(rng, &ITEMS, 2))
        });
        Self {
            subject: SUBJECTS.choose(rng).expect("not empty"),
            groups: pick(rng, &["admins", "users", "guests"], 2),
            action: Action::ALL.choose(rng).expect("not empty").1,
            credential,
            token,
        }
    }
}

/// Glob by the book, on segments: the text is cut at its slashes, and a segment never sees its neighbours.
fn glob(pattern: &str, text: &str) -> bool {
    fn go(p: &[char], t: &[char]) -> bool {
        match (p, t) {
            ([], []) => true,
            (['*', '*', p @ ..], t) => (0..=t.len()).any(|n| go(p, &t[n..])),
            (['*', rest @ ..], t) => go(rest, t) || t.first().is_some_and(|&c| c != '/' && go(p, &t[1..])),
            ([a, p @ ..], [b, t @ ..]) => a == b && go(p, t),
            _ => false,
        }
    }
    go(&pattern.chars().collect::<Vec<_>>(), &text.chars().collect::<Vec<_>>())
}

fn reference(grants: &[Plain], asked: &Asked) -> bool {
    let any = |patterns: &[&str], text: &str| patterns.iter().any(|pattern| glob(pattern, text));
    let subset = |limit: &Option<Vec<&str>>, items: &[&str]| match limit {
        None => true,
        Some(limit) => !items.is_empty() && items.iter().all(|item| any(limit, item)),
    };
    for grant in grants {
        let for_caller = any(&grant.subjects, asked.subject);
        let claimed = grant.claim.is_none_or(|claim| asked.groups.contains(&claim));
        let for_credential = match asked.credential {
            Some(name) => any(&grant.credentials, name),
            None => grant.credentials.contains(&"**"),
        };
        let for_token = match &asked.token {
            None => true,
            Some((scopes, audience, resources)) => {
                let audience: Vec<_> = audience.iter().copied().collect();
                subset(&grant.scopes, scopes)
                    && subset(&grant.audiences, &audience)
                    && subset(&grant.resources, resources)
            }
        };
        if for_caller && claimed && for_credential && for_token && grant.actions.contains(&asked.action) {
            return true;
        }
    }
    false
}

fn ask(rules: &Rules, asked: &Asked) -> Decision {
    let owned = |list: &[&str]| list.iter().map(|item| (*item).to_owned()).collect::<Vec<_>>();
    let claims = Claims::from([("groups".to_owned(), owned(&asked.groups))]);
    let caller = Caller::with_claims(asked.subject, claims, None);
    let name = asked.credential.map(|name| CredentialName::parse(name).expect(name));
    let selector = asked.token.as_ref().map(|(scopes, audience, resources)| {
        let name = name.clone().expect("a token is a credential's");
        Selector::new(name, owned(scopes), audience.map(str::to_owned), owned(resources))
    });
    rules.decide(&caller, &Question { action: asked.action, credential: name.as_ref(), selector: selector.as_ref() })
}

#[test]
fn a_million_random_questions_agree_with_the_reference() {
    let mut rng = StdRng::seed_from_u64(5);
    let (mut asked, mut allowed) = (0_u32, 0_u32);
    for _ in 0..20_000 {
        let count = rng.random_range(0..4);
        let plain: Vec<_> = (0..count).map(|_| Plain::random(&mut rng)).collect();
        let rules = Rules::new(plain.iter().enumerate().map(|(i, plain)| plain.grant(i)).collect());
        for _ in 0..50 {
            let question = Asked::random(&mut rng);
            let expected = reference(&plain, &question);
            let decided = ask(&rules, &question);
            assert_eq!(decided != Decision::Denied, expected, "{plain:#?} {question:#?}");
            asked += 1;
            allowed += u32::from(expected);
        }
    }
    assert_eq!(asked, 1_000_000);
    // Neither answer is so rare that the other could be given without looking.
    assert!((10_000..=900_000).contains(&allowed), "{allowed} were allowed");
}

#[test]
fn without_grants_everything_is_denied() {
    let question = Question { action: Action::Get, credential: None, selector: None };
    assert_eq!(Rules::default().decide(&Caller::anonymous(), &question), Decision::Denied);
}

#[test]
fn how_and_by_whom_somebody_was_authenticated_is_never_left_to_a_star() {
    for good in ["spiffe://prod/**", "jwt:k8s/*", "dns:*.prod.example", "key:*", "uid:1000", "anonymous"] {
        assert!(SubjectPattern::parse(good).is_ok(), "{good}");
    }
    let bad = [
        "**",
        "*",
        "spiffe://**",
        "spiffe://*/a",
        "spiffe://prod",
        "spiffe:**",
        "jwt:**",
        "jwt:*/x",
        "k*",
        "key:",
        "anon*",
        "Key:a",
        "",
    ];
    for bad in bad {
        assert!(SubjectPattern::parse(bad).is_err(), "{bad}");
    }
    let host = SubjectPattern::parse("dns:*.prod.example").expect("a pattern");
    assert!(host.matches("dns:a.prod.example") && !host.matches("dns:a.b.prod.example"));
}
