//! moto's EC2: set up with subnets and launch templates, and asked what it has.

use std::collections::BTreeMap;

use anyhow::{Context, Result, bail};
use axum::http::StatusCode;

use super::front::Upstream;
use super::query::{self, Answer, Params};
use super::xml::Element;
use crate::http;

/// moto reads the region from the credential's scope and checks nothing.
const AUTHORIZATION: &str = "AWS4-HMAC-SHA256 Credential=lab/20260101/us-east-1/ec2/aws4_request, SignedHeaders=host, Signature=lab";
/// An image that moto has.
const IMAGE: &str = "ami-12c6146b";

/// A client of moto.
#[derive(Debug, Clone)]
pub struct Moto {
    /// Where it listens.
    pub url: String,
    http: reqwest::Client,
}

/// An EC2 instance.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instance {
    /// `i-…`.
    pub id: String,
    /// `pending`, `running`, `shutting-down`, `terminated`, `stopping` or `stopped`.
    pub state: String,
    /// Its availability zone.
    pub zone: String,
    /// Its type.
    pub instance_type: String,
    /// Its private name, as EKS names nodes.
    pub private_dns_name: String,
    /// The client token of its launch.
    pub client_token: String,
    /// Its tags.
    pub tags: BTreeMap<String, String>,
}

impl Moto {
    /// A client of the moto at this address.
    pub fn new(url: &str) -> Result<Self> {
        Ok(Self {
            url: url.to_owned(),
            http: http::client()?,
        })
    }

    /// Makes a call and reads its answer; a refusal is an error.
    pub async fn call(&self, action: &str, params: &[(String, String)]) -> Result<Element> {
        let mut all: Params = params.iter().cloned().collect();
        all.insert("Action".to_owned(), action.to_owned());
        all.insert("Version".to_owned(), "2016-11-15".to_owned());
        let answer = self.perform(None, &all).await?;
        if !answer.status.is_success() {
            bail!("{action}: {} {}", answer.status, answer.body);
        }
        Element::parse(&answer.body)
            .root()
            .cloned()
            .context("an empty answer")
    }

    /// All instances, terminated ones too.
    pub async fn instances(&self) -> Result<Vec<Instance>> {
        let answer = self.call("DescribeInstances", &[]).await?;
        let reservations = answer.items("reservationSet");
        Ok(reservations
            .flat_map(|reservation| reservation.items("instancesSet"))
            .map(instance_of)
            .collect())
    }

    /// Subnet ids by zone.
    pub async fn subnets(&self) -> Result<BTreeMap<String, String>> {
        let answer = self.call("DescribeSubnets", &[]).await?;
        let pair = |item: &Element| {
            (
                item.at(&["availabilityZone"]).to_owned(),
                item.at(&["subnetId"]).to_owned(),
            )
        };
        Ok(answer.items("subnetSet").map(pair).collect())
    }

    /// Makes a launch template whose instances get these tags; gives its id.
    pub async fn create_launch_template(
        &self,
        name: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<String> {
        let mut params = vec![
            ("LaunchTemplateName".to_owned(), name.to_owned()),
            ("LaunchTemplateData.ImageId".to_owned(), IMAGE.to_owned()),
            (
                "LaunchTemplateData.InstanceType".to_owned(),
                "m5.large".to_owned(),
            ),
        ];
        params.extend(tag_params("LaunchTemplateData.TagSpecification.1", tags));
        let answer = self.call("CreateLaunchTemplate", &params).await?;
        Ok(answer
            .at(&["launchTemplate", "launchTemplateId"])
            .to_owned())
    }

    /// Starts an instance from version 1 of a launch template; gives its id.
    pub async fn run(
        &self,
        template: &str,
        instance_type: &str,
        subnet: &str,
        tags: &BTreeMap<String, String>,
    ) -> Result<String> {
        let mut params: Vec<(String, String)> = [
            ("MinCount", "1"),
            ("MaxCount", "1"),
            ("LaunchTemplate.LaunchTemplateName", template),
            ("LaunchTemplate.Version", "1"),
            ("InstanceType", instance_type),
            ("SubnetId", subnet),
        ]
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .into();
        params.extend(tag_params("TagSpecification.1", tags));
        let answer = self.call("RunInstances", &params).await?;
        let first = answer
            .items("instancesSet")
            .next()
            .context("a launch without an instance")?;
        Ok(first.at(&["instanceId"]).to_owned())
    }

    /// Terminates an instance.
    pub async fn terminate(&self, id: &str) -> Result<()> {
        self.call(
            "TerminateInstances",
            &[("InstanceId.1".to_owned(), id.to_owned())],
        )
        .await
        .map(drop)
    }
}

impl Upstream for Moto {
    async fn perform(&self, authorization: Option<&str>, params: &Params) -> Result<Answer> {
        let response = self
            .http
            .post(&self.url)
            .header("authorization", authorization.unwrap_or(AUTHORIZATION))
            .header(
                "content-type",
                "application/x-www-form-urlencoded; charset=utf-8",
            )
            .body(query::encode(params))
            .send()
            .await?;
        let status = StatusCode::from_u16(response.status().as_u16()).context("an odd status")?;
        Ok(Answer {
            status,
            body: response.text().await?,
        })
    }
}

fn tag_params(prefix: &str, tags: &BTreeMap<String, String>) -> Vec<(String, String)> {
    let mut params = vec![(format!("{prefix}.ResourceType"), "instance".to_owned())];
    for (index, (key, value)) in tags.iter().enumerate() {
        params.push((format!("{prefix}.Tag.{}.Key", index + 1), key.clone()));
        params.push((format!("{prefix}.Tag.{}.Value", index + 1), value.clone()));
    }
    if tags.is_empty() { Vec::new() } else { params }
}

fn instance_of(item: &Element) -> Instance {
    let tags = item
        .items("tagSet")
        .map(|tag| (tag.at(&["key"]).to_owned(), tag.at(&["value"]).to_owned()))
        .collect();
    Instance {
        id: item.at(&["instanceId"]).to_owned(),
        state: item.at(&["instanceState", "name"]).to_owned(),
        zone: item.at(&["placement", "availabilityZone"]).to_owned(),
        instance_type: item.at(&["instanceType"]).to_owned(),
        private_dns_name: item.at(&["privateDnsName"]).to_owned(),
        client_token: item.at(&["clientToken"]).to_owned(),
        tags,
    }
}
