// Karpenter with its own kwok provider, and with one repair policy more. That provider
// repairs nodes whose Ready is not True, and takes their machines for gone already: they
// would not be drained at all. StorageReady is repaired as Karpenter's AWS provider does.
package main

import (
	"log"
	"time"

	corev1 "k8s.io/api/core/v1"
	kwok "sigs.k8s.io/karpenter/kwok/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/cloudprovider"
	"sigs.k8s.io/karpenter/pkg/cloudprovider/overlay"
	"sigs.k8s.io/karpenter/pkg/controllers"
	"sigs.k8s.io/karpenter/pkg/controllers/state"
	"sigs.k8s.io/karpenter/pkg/operator"
)

type provider struct{ *kwok.CloudProvider }

func (p provider) RepairPolicies() []cloudprovider.RepairPolicy {
	return append(p.CloudProvider.RepairPolicies(), cloudprovider.RepairPolicy{
		ConditionType:      "StorageReady",
		ConditionStatus:    corev1.ConditionFalse,
		TolerationDuration: 30 * time.Minute,
	})
}

func main() {
	ctx, op := operator.NewOperator()
	types, err := kwok.ConstructInstanceTypes(ctx)
	if err != nil {
		log.Fatalf("instance types: %v", err)
	}
	bare := provider{kwok.NewCloudProvider(ctx, op.GetClient(), types)}
	overlaid := overlay.Decorate(bare, op.GetClient(), op.InstanceTypeStore)
	cluster := state.NewCluster(op.Clock, op.GetClient(), overlaid)
	op.WithControllers(ctx, controllers.NewControllers(
		ctx, op.Manager, op.Clock, op.GetClient(), op.EventRecorder,
		overlaid, bare, cluster, op.InstanceTypeStore,
	)...).Start(ctx)
}
