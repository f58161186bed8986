//! The id of a build's claim. The same request of the same step always gets the same id, so that an `out` that is run
//! again or re-attached finds its claim (docs/design.md, "Identity").

use crate::env::{hex, random_hex};
use crate::wire::api::{ClaimBody, Owner};
use crate::wire::digest::Fields;
use crate::wire::identity::Identity;

/// How many bytes of the digest make the id: 40 hexadecimal digits.
const ID_BYTES: usize = 20;

/// Where the claim comes from, in addition to its owner.
#[derive(Debug, Clone, Copy)]
pub enum Place<'a> {
    /// The container: an `out` that runs again in it finds its claim.
    Host(&'a str),
    /// A name given with `as`: every container of the build finds the claim.
    Named(&'a str),
}

/// The id for this request. Without a build nothing identifies the step, so the id is random.
#[must_use]
pub fn claim_id(owner: &Owner, place: Place<'_>, body: &ClaimBody) -> String {
    if owner.build_id.is_none() {
        return random_hex::<ID_BYTES>();
    }
    let (host, name) = match place {
        Place::Host(host) => (host, ""),
        Place::Named(name) => ("", name),
    };
    let mut fields = Fields::default();
    let who = [&owner.cluster, &owner.team, &owner.pipeline, &owner.instance_vars, &owner.job, &owner.build_id];
    for field in who {
        fields.text(field.as_deref().unwrap_or_default());
    }
    fields.text(host);
    fields.text(name);
    Identity::of_body(body).add_to(&mut fields);
    hex(&fields.finish()[..ID_BYTES])
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    fn owner(build: Option<&str>) -> Owner {
        let text = |text: &str| Some(text.to_owned());
        Owner {
            cluster: text("https://ci.example.com"),
            team: text("main"),
            pipeline: text("app"),
            job: text("deploy"),
            build_id: build.map(str::to_owned),
            build_name: text("3"),
            ..Owner::default()
        }
    }

    fn body(json: &str) -> ClaimBody {
        serde_json::from_str(json).unwrap()
    }

    /// Servers store these ids. A release that changes them loses the claims of running builds.
    #[test]
    fn golden() {
        let host = Place::Host("8f2c");
        let cases = [
            (host, r#"{"pool":"p"}"#, "00685f0eb468a454437c5dec3883afc7a9801aa3"),
            (host, r#"{"pool":"p","lock":"a"}"#, "2f1532838519caad0ca504f9db40a1d82cb873b0"),
            (
                Place::Named("env"),
                r#"{"pool":"p","count":2,"labels":{"a":"b"}}"#,
                "c4d237baad1c89f8f428d7c3e84f666892168cfb",
            ),
            (
                host,
                r#"{"pool":"l","key":"k","requestor":"me","scope":"flow"}"#,
                "4efe9fcdbcb7deadaa2ec755f3b8a3fbfbb5ddb7",
            ),
            (
                host,
                r#"{"pool":"p","also":[{"pool":"a","locks":["y","x"]}]}"#,
                "090e1520dd55447ab6630984b033ac1254d2b56f",
            ),
        ];
        for (place, asked, id) in cases {
            assert_eq!(claim_id(&owner(Some("42")), place, &body(asked)), id, "{asked}");
        }
    }

    #[test]
    fn the_same_question_has_the_same_id() {
        let same = [
            [r#"{"pool":"p"}"#, r#"{"pool":"p","count":1,"wait":"25s","ttl":"1h","reason":"x","queue":false}"#],
            [r#"{"pool":"p","lock":"a"}"#, r#"{"pool":"p","locks":["a"]}"#],
            [r#"{"pool":"p","key":"k"}"#, r#"{"pool":"p","key":"k","requestor":"k"}"#],
        ];
        for [a, b] in same {
            let id = |json| claim_id(&owner(Some("42")), Place::Host("h"), &body(json));
            assert_eq!(id(a), id(b), "{a} {b}");
        }
    }

    #[test]
    fn other_questions_builds_and_places_have_other_ids() {
        let asked = [
            r#"{"pool":"p"}"#,
            r#"{"pool":"p","count":2}"#,
            r#"{"pool":"p","lock":"a"}"#,
            r#"{"pool":"p","labels":{"a":"b"}}"#,
            r#"{"pool":"p","labels":{"ab":""}}"#,
            r#"{"pool":"p","key":"k"}"#,
            r#"{"pool":"p","key":"k","requestor":"r"}"#,
            r#"{"pool":"p","scope":"person"}"#,
            r#"{"pool":"p","also":[{"pool":"q"}]}"#,
            r#"{"pool":"q"}"#,
        ];
        let places = [Place::Host("h"), Place::Host("i"), Place::Named("h")];
        let mut ids = BTreeSet::new();
        for asked in asked {
            for place in places {
                for build in ["1", "2"] {
                    assert!(ids.insert(claim_id(&owner(Some(build)), place, &body(asked))), "{asked} {place:?}");
                }
            }
        }
        let random = || claim_id(&owner(None), places[0], &body(asked[0]));
        assert_ne!(random(), random());
        assert_eq!(random().len(), 40);
    }
}
