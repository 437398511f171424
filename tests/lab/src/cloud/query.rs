//! The EC2 Query protocol: forms in, XML out.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use anyhow::{Context, Result};
use axum::http::StatusCode;

/// A request's parameters by name.
pub type Params = BTreeMap<String, String>;

/// An answer, from moto or of the front's own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The HTTP status.
    pub status: StatusCode,
    /// The body, XML.
    pub body: String,
}

/// Reads a form.
pub fn parse(body: &str) -> Result<Params> {
    let url =
        reqwest::Url::parse(&format!("http://lab/?{body}")).context("a body that is no form")?;
    Ok(url.query_pairs().into_owned().collect())
}

/// Writes a form.
pub fn encode(params: &Params) -> String {
    let mut url = reqwest::Url::parse("http://lab/").expect("a constant address");
    url.query_pairs_mut().extend_pairs(params);
    url.query().unwrap_or_default().to_owned()
}

/// An error as EC2 writes it.
pub fn error(status: StatusCode, code: &str, message: &str) -> Answer {
    let body = format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<Response><Errors><Error><Code>{}</Code><Message>{}</Message></Error></Errors><RequestID>lab</RequestID></Response>",
        escape(code),
        escape(message)
    );
    Answer { status, body }
}

/// `DescribeInstances` without a result.
pub fn no_instances() -> Answer {
    let body = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<DescribeInstancesResponse xmlns=\"http://ec2.amazonaws.com/doc/2016-11-15/\"><requestId>lab</requestId><reservationSet/></DescribeInstancesResponse>".to_owned();
    Answer {
        status: StatusCode::OK,
        body,
    }
}

/// The values of `PREFIX.Filter.N.Value.M` of the filter with this name, and its N.
pub fn filter(params: &Params, name: &str) -> Option<(String, Vec<String>)> {
    let key = params
        .iter()
        .find(|(key, value)| key.starts_with("Filter.") && key.ends_with(".Name") && *value == name)
        .map(|(key, _)| key)?;
    let number = key.split('.').nth(1)?.to_owned();
    let prefix = format!("Filter.{number}.Value.");
    let values = params
        .iter()
        .filter(|(key, _)| key.starts_with(&prefix))
        .map(|(_, value)| value.clone())
        .collect();
    Some((number, values))
}

/// Puts another filter in the place of this one.
pub fn replace_filter(params: &mut Params, number: &str, name: &str, values: &[String]) {
    params.retain(|key, _| !key.starts_with(&format!("Filter.{number}.")));
    params.insert(format!("Filter.{number}.Name"), name.to_owned());
    for (index, value) in values.iter().enumerate() {
        params.insert(
            format!("Filter.{number}.Value.{}", index + 1),
            value.clone(),
        );
    }
}

fn escape(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // Writing to a String cannot fail.
            other => drop(write!(escaped, "{other}")),
        }
    }
    escaped
}
