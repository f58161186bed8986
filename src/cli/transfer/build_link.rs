//! Which build a commit of pool-resource belongs to, as its message says.
//!
//! Newer releases write a line `Build URL: LINK`, in which names may stand as they are or percent-encoded. Older ones
//! begin the message with `TEAM/PIPELINE/JOB build NUMBER` or `PIPELINE/JOB build NUMBER`.

use std::borrow::Cow;

use serde_json::{Map, Value};

use crate::core::limits::{INSTANCE_VARS_BYTES, OWNER_FIELD_BYTES};
use crate::wire::api::Owner;
use crate::wire::text::percent_decoded;

/// The build behind the commit with this message, if it says one.
pub(super) fn build_in(message: &str) -> Option<Owner> {
    let url = message.lines().find_map(|line| line.trim().strip_prefix("Build URL:"));
    let owner = url.map_or_else(|| by_prefix(message), |url| by_link(url.trim()))?;
    let fields = [&owner.cluster, &owner.team, &owner.pipeline, &owner.job, &owner.build_name];
    let is_sound = |field: &String| !field.is_empty() && !field.chars().any(char::is_control);
    let fits = |field: &String| is_sound(field) && field.len() <= OWNER_FIELD_BYTES;
    if fields.into_iter().flatten().all(fits) { Some(owner) } else { None }
}

/// The message without the line that [`build_in`] has understood.
pub(super) fn without_link(message: &str) -> String {
    let lines: Vec<&str> = message.lines().filter(|line| !line.trim().starts_with("Build URL:")).collect();
    lines.join("\n").trim().to_owned()
}

/// The build of a link: that of a build of a job, or `CONCOURSE/builds/ID`.
fn by_link(url: &str) -> Option<Owner> {
    let is_web = url.starts_with("http://") || url.starts_with("https://");
    if !is_web || url.chars().any(char::is_control) {
        return None;
    }
    let (path, query) = url.split_once('?').unwrap_or((url, ""));
    let parts: Vec<&str> = path.split('#').next()?.trim_end_matches('/').split('/').collect();
    let link = Some(url.replace(' ', "%20")).filter(|url| url.len() <= OWNER_FIELD_BYTES);
    let link = Owner { build_url: link, ..Owner::default() };
    match parts.as_slice() {
        [cluster @ .., "teams", team, "pipelines", pipeline, "jobs", job, "builds", name] => {
            let instance_vars = instance_vars(query);
            Some(Owner {
                // Without all the vars, another instance of the pipeline would be meant.
                cluster: instance_vars.is_ok().then(|| cluster.join("/")),
                team: Some(decoded(team)),
                pipeline: Some(decoded(pipeline)),
                instance_vars: instance_vars.unwrap_or_default(),
                job: Some(decoded(job)),
                build_name: Some(decoded(name)),
                ..link
            })
        }
        [cluster @ .., "builds", id] if id.parse::<u64>().is_ok() => {
            Some(Owner { cluster: Some(cluster.join("/")), build_id: Some((*id).to_owned()), ..link })
        }
        _ => None,
    }
}

/// The build of a message such as `main/shop/deploy build 12 claiming: eu-1`. It does not say which Concourse.
fn by_prefix(message: &str) -> Option<Owner> {
    let (place, rest) = message.lines().next()?.split_once(" build ")?;
    let (number, action) = rest.split_once(' ')?;
    if !action.starts_with("claiming: ") && !action.starts_with("adding claimed: ") {
        return None;
    }
    let parts: Vec<&str> = place.split('/').collect();
    let (team, pipeline, job) = match parts.as_slice() {
        [team, pipeline, job] => (Some(*team), pipeline, job),
        [pipeline, job] => (None, pipeline, job),
        _ => return None,
    };
    let text = |text: &str| Some(text.to_owned());
    let (pipeline, job) = (text(pipeline), text(job));
    Some(Owner { team: team.and_then(text), pipeline, job, build_name: text(number), ..Owner::default() })
}

fn decoded(text: &str) -> String {
    percent_decoded(text).map_or_else(|_| text.to_owned(), Cow::into_owned)
}

/// Some text in a query cannot be read as the vars of an instance.
#[derive(Debug)]
struct Unclear;

/// The vars of an instanced pipeline in the query of a link, as JSON: `vars.NAME=JSON` for each var, `vars.A.B=JSON` for
/// those inside of objects, or `vars={...}`. `None` if there are none.
fn instance_vars(query: &str) -> Result<Option<String>, Unclear> {
    let mut all = Value::Object(Map::new());
    let mut pairs: Vec<(&str, &str)> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    pairs.sort_unstable();
    for (name, value) in pairs {
        let name = decoded(name);
        let Some(reference) = name.strip_prefix("vars").filter(|rest| rest.is_empty() || rest.starts_with('.')) else {
            continue;
        };
        let value = json(value)?;
        let place = segments(reference).into_iter().try_fold(&mut all, |at, segment| {
            let members = at.as_object_mut().ok_or(Unclear)?;
            Ok(members.entry(segment).or_insert_with(|| Value::Object(Map::new())))
        })?;
        *place = value;
    }
    let is_empty = all.as_object().ok_or(Unclear)?.is_empty();
    let text = all.to_string();
    if text.len() > INSTANCE_VARS_BYTES { Err(Unclear) } else { Ok((!is_empty).then_some(text)) }
}

/// A value in a query: JSON as it is, or encoded as forms are.
fn json(text: &str) -> Result<Value, Unclear> {
    let as_form = decoded(&text.replace('+', " "));
    serde_json::from_str(text).or_else(|_| serde_json::from_str(&as_form)).map_err(|_| Unclear)
}

/// The segments of a reference such as `.a."b.c"`.
fn segments(reference: &str) -> Vec<String> {
    let mut segments: Vec<String> = Vec::new();
    let mut quoted = false;
    for c in reference.chars() {
        match c {
            '"' => quoted = !quoted,
            '.' if !quoted => segments.push(String::new()),
            c => segments.last_mut().into_iter().for_each(|segment| segment.push(c)),
        }
    }
    segments
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The build in words: cluster, place, instance vars, id.
    fn words(message: &str) -> Option<String> {
        let owner = build_in(message)?;
        let place = [owner.team, owner.pipeline, owner.job, owner.build_name];
        let place: Vec<String> = place.into_iter().flatten().collect();
        let rest = [owner.cluster, Some(place.join("/")), owner.instance_vars, owner.build_id];
        Some(rest.into_iter().flatten().filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" "))
    }

    #[test]
    fn what_a_link_says() {
        let job = "https://ci/teams/main/pipelines/app/jobs/deploy/builds/12";
        let of_job = "https://ci main/app/deploy/12";
        let table = [
            ("https://ci/builds/77".to_owned(), Some("https://ci 77".to_owned())),
            ("http://ci:8080/sub/builds/77/".to_owned(), Some("http://ci:8080/sub 77".to_owned())),
            (job.to_owned(), Some(of_job.to_owned())),
            (format!("{job}.1"), Some(format!("{of_job}.1"))),
            (job.replace("app", "shop%20app"), Some(of_job.replace("app", "shop app"))),
            (job.replace("app", "shop app"), Some(of_job.replace("app", "shop app"))),
            (format!("{job}?vars.branch=\"main\""), Some(format!(r#"{of_job} {{"branch":"main"}}"#))),
            (format!("{job}?vars.branch=%22a+b%22&x=1"), Some(format!(r#"{of_job} {{"branch":"a b"}}"#))),
            (format!("{job}?vars.n.a=1&vars.n.b=[1,2]"), Some(format!(r#"{of_job} {{"n":{{"a":1,"b":[1,2]}}}}"#))),
            (format!("{job}?vars.n.%22a.b%22=1"), Some(format!(r#"{of_job} {{"n":{{"a.b":1}}}}"#))),
            (format!("{job}?vars=%7B%22a%22%3A1%7D&vars.b=2"), Some(format!(r#"{of_job} {{"a":1,"b":2}}"#))),
            // The place without the Concourse, because the instance is not known.
            (format!("{job}?vars.branch=main"), Some("main/app/deploy/12".to_owned())),
            (format!("{job}?vars.a=1&vars.a.b=2"), Some("main/app/deploy/12".to_owned())),
            ("https://ci/teams/main".to_owned(), None),
            ("ftp://ci/builds/1".to_owned(), None),
            (job.replace("deploy", ""), None),
            (job.replace("deploy", "%1b"), None),
        ];
        for (link, expected) in table {
            assert_eq!(words(&format!("claiming: eu-1\nBuild URL: {link}")), expected, "{link}");
        }
        let long = format!("{job}?vars.branch=\"{}\"", "x".repeat(OWNER_FIELD_BYTES));
        let owner = build_in(&format!("claiming: eu-1\nBuild URL: {long}")).unwrap();
        assert_eq!((owner.build_url, owner.build_name.as_deref()), (None, Some("12")));
    }

    #[test]
    fn what_older_messages_say() {
        let table = [
            ("main/app/deploy build 12 claiming: eu-1", Some("main/app/deploy/12")),
            ("app/deploy build 12.1 claiming: eu-1", Some("app/deploy/12.1")),
            ("main/app/deploy build 12 adding claimed: eu-1", Some("main/app/deploy/12")),
            ("one-off build 77 claiming: eu-1", None),
            ("main/app/deploy build 12 unclaiming: eu-1", None),
            ("a/b/c/d build 12 claiming: eu-1", None),
            ("claiming: eu-1", None),
            ("", None),
        ];
        for (message, expected) in table {
            assert_eq!(words(message).as_deref(), expected, "{message}");
        }
    }
}
