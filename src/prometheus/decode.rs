//! The decoding of query answers: anything but a complete instant vector of finite
//! numbers is an error.

use nodemend_core::evidence::identity::Labels;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::Error;

/// One series of an instant vector.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// Its labels.
    pub labels: Labels,
    /// When the server evaluated it, in seconds since 1970, finite.
    pub at: f64,
    /// Its value, finite.
    pub value: f64,
}

/// What is not needed of an object. Flattened, it makes that only an object will do: serde
/// takes a list of the fields in their order too.
type Others = IgnoredAny;

#[derive(Deserialize)]
struct Envelope {
    status: String,
    #[serde(default)]
    error: String,
    #[serde(default)]
    warnings: Vec<String>,
    data: Option<Data>,
    #[serde(flatten)]
    _others: Others,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: serde_json::Value,
    #[serde(flatten)]
    _others: Others,
}

#[derive(Deserialize)]
struct RawSample {
    metric: Labels,
    value: Option<(f64, String)>,
    #[serde(flatten)]
    _others: Others,
}

/// Reads the body of an answer to an instant query, with at most `max_series` series.
pub fn decode(body: &[u8], max_series: usize) -> Result<Vec<Sample>, Error> {
    let envelope: Envelope =
        serde_json::from_slice(body).map_err(|error| Error::Shape(error.to_string()))?;
    if envelope.status != "success" {
        return Err(Error::Refused(start(&envelope.error)));
    }
    if !envelope.warnings.is_empty() {
        return Err(Error::Warnings(start(&envelope.warnings.join("; "))));
    }
    let data = envelope
        .data
        .ok_or_else(|| Error::Shape("no data".into()))?;
    if data.result_type != "vector" {
        return Err(Error::Type(data.result_type));
    }
    let samples: Vec<RawSample> =
        serde_json::from_value(data.result).map_err(|error| Error::Shape(error.to_string()))?;
    if samples.len() > max_series {
        return Err(Error::TooMany(samples.len(), max_series));
    }
    samples.into_iter().map(read).collect()
}

/// What Prometheus says in a body that does not come with status 200.
pub(super) fn refusal(body: &[u8]) -> String {
    match serde_json::from_slice::<Envelope>(body) {
        Ok(envelope) => start(&envelope.error),
        Err(_) => "not in the words of Prometheus".into(),
    }
}

/// As much of a text as fits into a message.
fn start(text: &str) -> String {
    text.chars().take(200).collect()
}

fn read(sample: RawSample) -> Result<Sample, Error> {
    let (at, text) = sample
        .value
        .ok_or_else(|| Error::Type("histogram".into()))?;
    let value: f64 = text.parse().map_err(|_| Error::Value(text.clone()))?;
    if !value.is_finite() {
        return Err(Error::Value(text));
    }
    Ok(Sample {
        labels: sample.metric,
        at,
        value,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(body: &str, expect: &Result<usize, &str>) {
        let found = decode(body.as_bytes(), 2)
            .map(|samples| samples.len())
            .map_err(|error| error.to_string());
        match (expect, &found) {
            (Ok(count), Ok(read)) => assert_eq!(count, read, "{body}"),
            (Err(part), Err(message)) if message.contains(part) => {}
            _ => panic!("{body}: {found:?}, not {expect:?}"),
        }
    }

    #[test]
    fn h18_anything_but_a_vector_of_finite_numbers_is_an_error() {
        let vector = |samples: &str| {
            format!(
                r#"{{"status":"success","data":{{"resultType":"vector","result":[{samples}]}}}}"#
            )
        };
        let sample = r#"{"metric":{"node":"a"},"value":[1,"2"]}"#;
        check(&vector(""), &Ok(0));
        check(&vector(sample), &Ok(1));
        check(&vector(&[sample; 3].join(",")), &Err("3 series"));
        check(&vector(r#"{"metric":{},"value":[1,"NaN"]}"#), &Err("NaN"));
        check(&vector(r#"{"metric":{},"value":[1,"+Inf"]}"#), &Err("+Inf"));
        check(
            &vector(r#"{"metric":{},"histogram":[1,{}]}"#),
            &Err("histogram"),
        );
        check(
            &vector(r#"{"metric":{},"value":[1,2]}"#),
            &Err("not an answer"),
        );
        check(
            r#"{"status":"success","data":{"resultType":"scalar","result":[1,"2"]}}"#,
            &Err("scalar"),
        );
        check(
            r#"{"status":"error","error":"bad","errorType":"x"}"#,
            &Err("refused: bad"),
        );
        check(r#"{"status":"success"}"#, &Err("no data"));
        // Lists in place of objects.
        let list = r#"["success","",[],{"resultType":"vector","result":[]}]"#;
        check(list, &Err("not an answer"));
        let list = r#"{"status":"success","data":["vector",[]]}"#;
        check(list, &Err("not an answer"));
        check(&vector(r#"[{"node":"a"},[1,"2"]]"#), &Err("not an answer"));
    }

    #[test]
    fn h15_an_answer_with_warnings_is_an_error() {
        check(
            r#"{"status":"success","warnings":["w"],"data":{"resultType":"vector","result":[]}}"#,
            &Err("warnings: w"),
        );
    }

    #[test]
    fn h22_a_page_of_a_proxy_is_an_error() {
        check("<html></html>", &Err("not an answer"));
        check("", &Err("not an answer"));
    }
}
