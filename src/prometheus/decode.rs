//! The decoding of query answers: anything but a complete instant vector of finite
//! numbers is an error.

use std::fmt;

use nodemend_core::evidence::identity::Labels;
use serde::Deserialize;
use serde::de::value::MapAccessDeserializer;
use serde::de::{Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};

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

/// No fleet has more series; the rest of an answer is only counted.
const MOST: usize = 2_000_000;

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
    /// By `VictoriaMetrics`: a part of its storage did not answer.
    #[serde(default, rename = "isPartial")]
    partial: bool,
    data: Option<Data>,
    #[serde(flatten)]
    _others: Others,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Data {
    result_type: String,
    result: List,
    #[serde(flatten)]
    _others: Others,
}

/// What Prometheus says where it refuses.
#[derive(Deserialize)]
struct Excuse {
    #[serde(default)]
    error: String,
}

#[derive(Deserialize)]
struct RawSample {
    metric: Labels,
    value: Option<(f64, String)>,
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
    if envelope.partial {
        return Err(Error::Warnings("isPartial: some data are missing".into()));
    }
    let data = envelope
        .data
        .ok_or_else(|| Error::Shape("no data".into()))?;
    if data.result_type != "vector" {
        return Err(Error::Type(data.result_type));
    }
    let List {
        samples,
        more,
        others,
    } = data.result;
    if others > 0 {
        return Err(Error::Shape("a series is no object".into()));
    }
    let count = samples.len() + more;
    if count > max_series.min(MOST) {
        return Err(Error::TooMany(count, max_series.min(MOST)));
    }
    samples.into_iter().map(read).collect()
}

/// What Prometheus says in a body that does not come with status 200.
pub(super) fn refusal(body: &[u8]) -> String {
    match serde_json::from_slice::<Excuse>(body) {
        Ok(excuse) => start(&excuse.error),
        Err(_) => "not in the words of Prometheus".into(),
    }
}

/// A result of any type, read as it comes: of an answer of many megabytes nothing is kept
/// but what is asked for.
#[derive(Default)]
struct List {
    samples: Vec<RawSample>,
    /// Objects beyond `MOST`.
    more: usize,
    /// What is no object.
    others: usize,
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Elements;
        impl<'de> Visitor<'de> for Elements {
            type Value = List;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
                let mut list = List::default();
                while list.samples.len() < MOST {
                    match seq.next_element()? {
                        Some(Element::Series(sample)) => list.samples.push(sample),
                        Some(Element::Other) => list.others += 1,
                        None => return Ok(list),
                    }
                }
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    list.more += 1;
                }
                Ok(list)
            }
        }
        from.deserialize_seq(Elements)
    }
}

enum Element {
    Series(RawSample),
    /// A part of a scalar or a string.
    Other,
}

impl<'de> Deserialize<'de> for Element {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Element;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a series, a number or a text")
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Element, A::Error> {
                RawSample::deserialize(MapAccessDeserializer::new(map)).map(Element::Series)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Element, E> {
                Ok(Element::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Element, E> {
                Ok(Element::Other)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Element, E> {
                Ok(Element::Other)
            }
            fn visit_str<E>(self, _: &str) -> Result<Element, E> {
                Ok(Element::Other)
            }
        }
        from.deserialize_any(Any)
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
        let other = |kind: &str, result: &str| {
            format!(r#"{{"status":"success","data":{{"resultType":"{kind}","result":{result}}}}}"#)
        };
        check(&other("string", r#"[1,"x"]"#), &Err("string"));
        let range = r#"[{"metric":{},"values":[[1,"2"],[2,"2"]]}]"#;
        check(&other("matrix", range), &Err("matrix"));
        for result in [
            "[1]", r#"["x"]"#, "[[]]", "[null]", "{}", "null", "7", "[{}]",
        ] {
            check(&other("vector", result), &Err("not an answer"));
        }
        // The type may come last.
        let last = format!(
            r#"{{"status":"success","data":{{"result":[{sample}],"resultType":"vector"}}}}"#
        );
        check(&last, &Ok(1));
        // Lists in place of objects.
        for text in [
            r#"["success","",[],{"resultType":"vector","result":[]}]"#,
            r#"{"status":"success","data":["vector",[]]}"#,
        ] {
            check(text, &Err("not an answer"));
        }
        check(&vector(r#"[{"node":"a"},[1,"2"]]"#), &Err("not an answer"));
    }

    #[test]
    fn h15_an_answer_with_warnings_is_an_error() {
        check(
            r#"{"status":"success","warnings":["w"],"data":{"resultType":"vector","result":[]}}"#,
            &Err("warnings: w"),
        );
        check(
            r#"{"status":"success","isPartial":true,"data":{"resultType":"vector","result":[]}}"#,
            &Err("warnings: isPartial: some data are missing"),
        );
    }

    #[test]
    fn h22_a_page_of_a_proxy_is_an_error() {
        check("<html></html>", &Err("not an answer"));
        check("", &Err("not an answer"));
    }
}
