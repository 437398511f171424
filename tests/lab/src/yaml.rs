//! YAML documents as JSON values, for what is sent to the API.

use anyhow::{Context, Result, bail};
use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Value};

/// Every document of the text that is not empty.
pub fn documents(text: &str) -> Result<Vec<Value>> {
    let parsed = Yaml::load_from_str(text).context("parsing YAML")?;
    let values: Result<Vec<Value>> = parsed.iter().map(value_of).collect();
    Ok(values?
        .into_iter()
        .filter(|value| !value.is_null())
        .collect())
}

fn value_of(node: &Yaml<'_>) -> Result<Value> {
    Ok(match node {
        Yaml::Value(scalar) => match scalar {
            Scalar::Null => Value::Null,
            Scalar::Boolean(flag) => (*flag).into(),
            Scalar::Integer(number) => (*number).into(),
            Scalar::FloatingPoint(number) => number.into_inner().into(),
            Scalar::String(text) => text.to_string().into(),
        },
        Yaml::Sequence(items) => Value::Array(items.iter().map(value_of).collect::<Result<_>>()?),
        Yaml::Mapping(entries) => {
            let mut map = Map::new();
            for (key, value) in entries {
                let key = key.as_str().context("a key that is no text")?;
                map.insert(key.to_owned(), value_of(value)?);
            }
            Value::Object(map)
        }
        Yaml::Tagged(_, inner) => value_of(inner)?,
        other => bail!("YAML that JSON cannot hold: {other:?}"),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    #[test]
    fn documents_are_split_and_typed() {
        let text = "a: {b: [1, x, \"2\", true, 1.5]}\n---\n# only a comment\n---\nc: null\n";
        let found = super::documents(text).unwrap();
        assert_eq!(
            found,
            [
                json!({"a": {"b": [1, "x", "2", true, 1.5]}}),
                json!({"c": null})
            ]
        );
    }
}
