//! Issuers in the access file: each fault has its line, and rules about builds say whose builds they mean.

use locker::server::auth::access::AccessFile;

fn faults(text: &str) -> Vec<String> {
    AccessFile::parse(text).err().unwrap_or_default().iter().map(ToString::to_string).collect()
}

const TWO: &str = "issuers:
- {name: ci, kind: concourse, issuer: 'https://ci', audience: locker}
- {name: gh, kind: github-actions, audience: locker, require: {repository_owner: acme}}
rules:
";

#[test]
fn each_fault_has_its_line() {
    let table = [
        ("issuers: 7\nrules: []\n", "line 1: issuers: must be a list of issuers"),
        (
            "issuers:\n- name: ci\n  kind: concorse\n",
            "line 3: issuers[0].kind: unknown kind \"concorse\": did you mean",
        ),
        (
            "issuers:\n- name: ci\n  kind: concourse\n  issuer: https://ci\n  audiense: x\n",
            "line 5: unknown issuers[0] key",
        ),
        ("issuers:\n- name: ci\n  kind: concourse\n  issuer: https://ci\n", "line 2: issuers[0].audience: is missing"),
        (
            "issuers:\n- {name: a, kind: concourse, issuer: 'https://a', audience: x}\n- name: a\n  kind: custom\n  \
             issuer: https://b\n  audience: x\n  claims:\n    team: t\n    jobb: j\n",
            "line 9: unknown issuers[1].claims key \"jobb\": did you mean \"job\"?",
        ),
        ("issuers:\n- name: ci\n  kind: concourse\n  kind: gitlab\n", "line 4: duplicate mapping key: kind"),
        (
            "issuers:\n- name: x\n  kind: custom\n  issuer: https://b\n  audience: x\n  claims: {team: t}\n  require:\n    \
             a.b: {}\n",
            "line 8: issuers[0].require.a.b: must be a value",
        ),
    ];
    for (text, expected) in table {
        let found = faults(text);
        assert!(found.iter().any(|fault| fault.starts_with(expected)), "{text}{found:#?}");
    }
}

/// Teams of two issuers may have one name, and whoever can make a team in one of them must not get the rights of the other.
#[test]
fn with_several_issuers_a_rule_says_whose_build_it_means() {
    let rule = |to: &str| faults(&format!("{TWO}- {{to: '{to}', may: look, pools: a}}\n"));
    for good in ["team:ci/a", "pipeline:gh/acme/app", "anyone", "authenticated", "user:a"] {
        assert_eq!(rule(good), [""; 0], "{good}");
    }
    let which = "line 5: team:a: there are several issuers, so say which: one of ci, gh";
    assert_eq!(rule("team:a"), [which]);
    assert_eq!(rule("pipeline:a/b"), [which.replace("team:a", "pipeline:a/b")]);
    assert_eq!(rule("team:ca/a"), ["line 5: team:ca/a: unknown issuer \"ca\": expected one of ci, gh"]);
    let one = TWO.lines().filter(|line| !line.contains("gh")).collect::<Vec<_>>().join("\n");
    assert_eq!(faults(&format!("{one}\n- {{to: team:a, may: look, pools: a}}\n")), [""; 0]);
}
