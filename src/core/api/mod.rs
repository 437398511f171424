//! The custom resources of group `nodemend.dev`, version `v1alpha1`: what people
//! write (`policy`) and what nodemend writes (`records`). Types and schemas only.

#![allow(
    clippy::duplicated_attributes,
    reason = "each printer column repeats the keys of the one before"
)]

mod decision;
mod policy;
mod records;

pub use decision::*;
pub use policy::*;
pub use records::*;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube_core::CustomResourceExt;

/// Every custom resource definition, in the order of DESIGN's table.
pub fn definitions() -> Vec<CustomResourceDefinition> {
    vec![
        RepairPolicy::crd(),
        RepairPause::crd(),
        AlertGroup::crd(),
        NodeHealth::crd(),
        FleetState::crd(),
        NodeRepair::crd(),
    ]
}
