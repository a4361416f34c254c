package gatewaytest

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/redis/rueidis"
)

// Cluster is a real Redis Cluster: three masters that share the slots, and then a
// replica of each, if there are any. A master that is killed is then replaced after
// about two seconds.
type Cluster struct {
	Nodes []*Redis

	t       testing.TB
	clients []rueidis.Client
	ids     []string
}

const masters = 3

// NewCluster starts a Cluster with so many replicas of each master, 0 or 1, and waits
// until all of it knows all of it.
func NewCluster(t testing.TB, replicas int) *Cluster {
	t.Helper()
	c := &Cluster{t: t}
	all := masters * (1 + replicas)
	for i := range all {
		_, bus, _ := net.SplitHostPort(FreeAddress(t))
		r := NewRedis(t, "--cluster-enabled", "yes", "--cluster-port", bus, "--cluster-node-timeout", "1000",
			"--repl-diskless-sync-delay", "0", "--appendfsync", "everysec")
		client, err := rueidis.NewClient(rueidis.ClientOption{InitAddress: []string{r.Address()}, ForceSingleClient: true, DisableCache: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(client.Close)
		c.Nodes, c.clients = append(c.Nodes, r), append(c.clients, client)
		id, err := c.do(i, "CLUSTER", "MYID").ToString()
		if err != nil {
			t.Fatal(err)
		}
		c.ids = append(c.ids, id)
		c.do(i, "CLUSTER", "SET-CONFIG-EPOCH", fmt.Sprint(i+1))
		if i < masters {
			c.do(i, "CLUSTER", "ADDSLOTSRANGE", fmt.Sprint(i*16384/masters), fmt.Sprint((i+1)*16384/masters-1))
		}
		if i == 0 {
			c.Nodes[0].bus = bus
			continue
		}
		_, port, _ := net.SplitHostPort(c.Nodes[0].address)
		c.do(i, "CLUSTER", "MEET", "127.0.0.1", port, c.Nodes[0].bus)
	}
	c.all(fmt.Sprint("cluster_known_nodes:", all))
	for i := masters; i < all; i++ {
		c.do(i, "CLUSTER", "REPLICATE", c.ids[i-masters])
	}
	c.all("cluster_state:ok")
	for i := masters; i < all; i++ {
		c.AwaitReplica(i)
	}
	return c
}

// Store is the configuration of session.store for it, with more keys of
// session.store.redis.
func (c *Cluster) Store(more map[string]any) map[string]any {
	own := map[string]any{"addresses": []string{c.Nodes[0].address, c.Nodes[1].address}, "cluster": true}
	maps.Copy(own, more)
	return c.Nodes[0].Store(own)
}

// all waits until every node that runs says something of the Cluster.
func (c *Cluster) all(want string) {
	c.t.Helper()
	for i, node := range c.Nodes {
		if node.Running() {
			c.await(i, want, "CLUSTER", "INFO")
		}
	}
}

// AwaitMaster waits until a node is a master, and all that run agree.
func (c *Cluster) AwaitMaster(node int) {
	c.t.Helper()
	c.await(node, "role:master", "INFO", "replication")
	c.awaitAgreement()
	c.all("cluster_state:ok")
}

// AwaitReplica waits until a node follows a master.
func (c *Cluster) AwaitReplica(node int) {
	c.t.Helper()
	c.await(node, "master_link_status:up", "INFO", "replication")
}

func (c *Cluster) await(node int, want string, command ...string) {
	c.t.Helper()
	var said string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if said, _ = c.send(node, command...).ToString(); strings.Contains(said, want) {
			return
		}
	}
	c.t.Fatalf("node %d: no %s in %s", node, want, said)
}

func (c *Cluster) send(node int, words ...string) rueidis.RedisResult {
	client := c.clients[node]
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	return client.Do(ctx, client.B().Arbitrary(words...).Build())
}

// do is send for a command that succeeds.
func (c *Cluster) do(node int, words ...string) rueidis.RedisResult {
	c.t.Helper()
	answer := c.send(node, words...)
	if err := answer.Error(); err != nil {
		c.t.Fatalf("%s at node %d: %v", words[:2], node, err)
	}
	return answer
}

// Slots are those in which the first masters have keys of a pattern, and by which of
// them.
func (c *Cluster) Slots(pattern string) map[int64]int {
	c.t.Helper()
	slots := map[int64]int{}
	for node := range masters {
		names, err := c.do(node, "KEYS", pattern).AsStrSlice()
		if err != nil {
			c.t.Fatal(err)
		}
		for _, name := range names {
			slot, err := c.do(node, "CLUSTER", "KEYSLOT", name).ToInt64()
			if err != nil {
				c.t.Fatal(err)
			}
			slots[slot] = node
		}
	}
	return slots
}

// Migrate moves the keys of a slot, a few at a time, and leaves it on its way.
func (c *Cluster) Migrate(slot int64, from, to int) {
	c.t.Helper()
	n := fmt.Sprint(slot)
	c.do(to, "CLUSTER", "SETSLOT", n, "IMPORTING", c.ids[from])
	c.do(from, "CLUSTER", "SETSLOT", n, "MIGRATING", c.ids[to])
	_, port, _ := net.SplitHostPort(c.Nodes[to].address)
	for {
		keys, err := c.do(from, "CLUSTER", "GETKEYSINSLOT", n, "2").AsStrSlice()
		if err != nil {
			c.t.Fatal(err)
		}
		if len(keys) == 0 {
			return
		}
		c.do(from, slices.Concat([]string{"MIGRATE", "127.0.0.1", port, "", "0", "5000", "KEYS"}, keys)...)
		time.Sleep(2 * time.Millisecond) // somebody meets it half way
	}
}

// Arrive makes slots the next nodes', to which Migrate has moved their keys. It goes
// node by node, and waits until everybody knows: one that has not heard of a slot
// believes nobody who claims it, once its former owner has got another slot (the
// greater epoch wins).
func (c *Cluster) Arrive(slots map[int64]int, next func(node int) int) {
	c.t.Helper()
	for from := range masters {
		to := next(from)
		for slot, owner := range slots {
			for _, node := range []int{to, from} {
				if owner == from {
					c.do(node, "CLUSTER", "SETSLOT", fmt.Sprint(slot), "NODE", c.ids[to])
				}
			}
		}
		c.awaitAgreement()
	}
}

func (c *Cluster) awaitAgreement() {
	c.t.Helper()
	var views []string
	for end := time.Now().Add(20 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		views = nil
		for i, node := range c.Nodes {
			if node.Running() {
				views = append(views, c.view(i))
			}
		}
		if views = slices.Compact(views); len(views) == 1 {
			return
		}
	}
	c.t.Fatalf("the nodes do not agree: %q", views)
}

// view is who a node says has which slots.
func (c *Cluster) view(node int) string {
	c.t.Helper()
	ranges, err := c.do(node, "CLUSTER", "SLOTS").ToArray()
	if err != nil {
		c.t.Fatal(err)
	}
	var all []string
	for _, r := range ranges {
		parts, _ := r.ToArray()
		first, _ := parts[0].AsInt64()
		last, _ := parts[1].AsInt64()
		master, _ := parts[2].ToArray()
		port, _ := master[1].AsInt64()
		all = append(all, fmt.Sprint(first, "-", last, ":", port))
	}
	slices.Sort(all)
	return strings.Join(all, " ")
}
