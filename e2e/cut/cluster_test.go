package cut

import (
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
)

// gatherAtCluster has everybody call whose tokens run out every second.
func gatherAtCluster(t *testing.T, cluster *gatewaytest.Cluster, more map[string]any) *crowd {
	t.Helper()
	return gather(newWorldWith(t, people+1, gatewaytest.Options{Store: cluster.Store(more), TokenTTL: time.Second}), nothing)
}

// wantRefreshed ends the calls, and wants refreshes of which none was sent twice.
func (c *crowd) wantRefreshed() {
	c.t.Helper()
	c.stop()
	stats := c.Provider.Stats()
	c.t.Logf("%d refreshes", stats.Refreshed)
	if len(stats.Reuses) > 0 || stats.Refreshed < 2*people {
		c.t.Errorf("%d refreshes, %d reuses", stats.Refreshed, len(stats.Reuses))
	}
}

// A Cluster is resharded while everybody calls and is refreshed: nobody is logged
// out, and what somebody ends half way is over at the other gateway.
func TestAClusterThatIsResharded(t *testing.T) {
	t.Parallel()
	cluster := gatewaytest.NewCluster(t, 0)
	c := gatherAtCluster(t, cluster, nil)
	next := func(node int) int { return (node + 1) % 3 }
	move := func() (slots map[int64]int) {
		t.Helper()
		slots = cluster.Slots("sessiongate:{*}:session:*")
		if len(slots) < people/2 {
			t.Fatalf("%d slots have sessions", len(slots))
		}
		for slot, node := range slots {
			cluster.Migrate(slot, node, next(node))
		}
		return slots
	}
	for range 4 { // tokens run out meanwhile
		slots := move()
		c.everybody("half way", good)
		time.Sleep(500 * time.Millisecond)
		cluster.Arrive(slots, next)
	}
	slots := move()
	if err := c.leaver.Via(c.a).Logout(); err != nil {
		t.Error(err)
	}
	c.await("a logout half way, at B", c.left, ended("logout"), busy)
	c.works()
	cluster.Arrive(slots, next)
	c.everybody("at the end", good)
	c.await("the logout, at B", c.left, ended("logout"), busy)
	c.works()
	c.wantRefreshed()
}

// A master of a Cluster is lost, and comes back as a replica: nobody is logged out,
// as what was acknowledged was at its replica.
func TestAClusterThatLosesAMaster(t *testing.T) {
	t.Parallel()
	cluster := gatewaytest.NewCluster(t, 1)
	c := gatherAtCluster(t, cluster, map[string]any{"wait_replicas": 1})
	time.Sleep(time.Second) // refreshes are under way
	killed := time.Now()
	cluster.Nodes[1].Kill()
	cluster.AwaitMaster(4)
	t.Logf("promoted after %v", time.Since(killed).Round(time.Millisecond))
	cluster.Nodes[1].Start()
	cluster.AwaitReplica(1)
	c.everybody("with a new master", good)
	c.works()
	c.wantRefreshed()
}
