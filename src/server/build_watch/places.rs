//! Builds that holds name by their place alone: team, pipeline, job and number, but no id. Which of them their Concourse
//! is asked about next, so that the watch can go on with the id. Values in, values out.
//!
//! The question is put once: the id is then kept with the claim. It is repeated, rarely, only while it has no answer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;

use crate::client::http::encode;
use crate::core::claim::{Claim, Owner};
use crate::core::names::{ClaimId, InstanceVars, Text};
use crate::server::build_watch::limits;

/// A build that some holds name by its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The owner of one of these holds.
    pub owner: Arc<Owner>,
    /// The holds, each with the URL by which it knows the Concourse.
    pub holds: Vec<(ClaimId, Text)>,
    /// Whether the log says already that it cannot be found.
    pub is_said: bool,
    due: Duration,
}

/// The builds of one Concourse that are sought, by the path at which its API has them.
#[derive(Debug, Default)]
pub struct Places {
    sought: BTreeMap<String, Place>,
    not_before: Duration,
}

impl Places {
    /// Seeks exactly the builds of these holds from now on.
    pub fn keep<'c>(&mut self, holds: impl Iterator<Item = &'c Arc<Claim>>, now: Duration) {
        let mut before = std::mem::take(&mut self.sought);
        for claim in holds {
            let owner = &claim.terms.owner;
            let Some((path, cluster)) = path(owner).zip(owner.cluster.clone()) else { continue };
            let known = before.remove(&path);
            let place = self.sought.entry(path).or_insert_with(|| {
                let (due, is_said) = known.map_or((now, false), |place| (place.due, place.is_said));
                Place { owner: Arc::clone(owner), holds: Vec::new(), is_said, due }
            });
            place.holds.push((claim.id.clone(), cluster));
        }
    }

    /// The build to ask about now, if any is due, with its path.
    #[must_use]
    pub fn next(&self, now: Duration) -> Option<(String, Place)> {
        let (path, place) = self.sought.iter().min_by_key(|(_, place)| place.due)?;
        (place.due.max(self.not_before) <= now).then(|| (path.clone(), place.clone()))
    }

    /// It was asked about at `now`, and will be again after `pause` if it is still sought then.
    pub fn asked(&mut self, path: &str, now: Duration, pause: Duration) {
        self.not_before = now + Duration::from_millis(limits::WATCH_PLACE_PAUSE_MS);
        if let Some(place) = self.sought.get_mut(path) {
            (place.due, place.is_said) = (now + pause, true);
        }
    }

    /// No build is asked about for so long: the Concourse does not answer as it should.
    pub fn rest(&mut self, now: Duration, pause: Duration) {
        self.not_before = now + pause;
    }
}

/// Where the API of a Concourse has the build that this owner names by its place. `None` if the owner does not name one,
/// or not in full.
#[must_use]
pub fn path(owner: &Owner) -> Option<String> {
    let part = |part: &Option<Text>| part.as_ref().map(|part| encode(part.as_str()));
    let (team, pipeline) = (part(&owner.team)?, part(&owner.pipeline)?);
    let (job, number) = (part(&owner.job)?, part(&owner.build_name)?);
    let query = owner.instance_vars.as_ref().map_or_else(|| Some(String::new()), query)?;
    Some(format!("/api/v1/teams/{team}/pipelines/{pipeline}/jobs/{job}/builds/{number}{query}"))
}

/// How the API is told which instance of a pipeline is meant. `None` if the vars were too long to be known in full.
fn query(vars: &InstanceVars) -> Option<String> {
    let vars = serde_json::from_str::<Value>(&vars.to_string()).ok()?;
    let vars = vars.as_object()?;
    Some(if vars.is_empty() {
        String::new()
    } else {
        format!("?vars={}", encode(&Value::from(vars.clone()).to_string()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Option<Text> {
        Some(Text::parse(text).unwrap())
    }

    fn owner(number: &str, vars: Option<&str>) -> Owner {
        Owner {
            cluster: text("https://ci"),
            team: text("main"),
            pipeline: text("shop app"),
            instance_vars: vars.map(|vars| InstanceVars::parse(vars).unwrap()),
            job: text("deploy it"),
            build_name: text(number),
            ..Owner::default()
        }
    }

    #[test]
    fn where_the_api_has_a_build() {
        let plain = "/api/v1/teams/main/pipelines/shop%20app/jobs/deploy%20it/builds/12.1";
        let table = [
            (None, Some(plain.to_owned())),
            (Some("{}"), Some(plain.to_owned())),
            (Some(r#"{"n": {"a": 1}}"#), Some(format!("{plain}?vars=%7B%22n%22%3A%7B%22a%22%3A1%7D%7D"))),
            (Some(r#"{"n": {"a...sha256:0123456789abcdef"#), None),
            (Some("[1]"), None),
        ];
        for (vars, expected) in table {
            assert_eq!(path(&owner("12.1", vars)), expected, "{vars:?}");
        }
        assert_eq!(path(&Owner { job: None, ..owner("12", None) }), None);
    }

    #[test]
    fn each_build_is_asked_about_in_its_turn_and_again_only_later() {
        let secs = Duration::from_secs;
        let place = |due| Place { owner: Arc::default(), holds: Vec::new(), is_said: false, due };
        let sought = [("a", 1), ("b", 0)].map(|(path, due)| (path.to_owned(), place(secs(due)))).into();
        let mut places = Places { sought, not_before: Duration::ZERO };
        let next = |places: &Places, now| places.next(now).map(|(path, _)| path);
        assert_eq!(next(&places, secs(1)).as_deref(), Some("b"));
        places.asked("b", secs(1), secs(300));
        assert_eq!(next(&places, secs(1)), None, "not at the same moment");
        assert_eq!(next(&places, secs(2)).as_deref(), Some("a"));
        places.asked("a", secs(2), secs(300));
        assert_eq!(next(&places, secs(300)), None);
        assert!(places.next(secs(301)).is_some_and(|(path, place)| path == "b" && place.is_said));
        places.rest(secs(301), secs(60));
        assert_eq!((next(&places, secs(360)), next(&places, secs(361)).as_deref()), (None, Some("b")));
    }
}
