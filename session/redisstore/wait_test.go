package redisstore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"sessiongate/session"
)

// replicate starts a replica and returns when it has all.
func replicate(t *testing.T, master *server) *server {
	t.Helper()
	replica := launch(t, "--replicaof", "127.0.0.1 "+master.port, "--repl-diskless-sync-delay", "0")
	awaitReplica(t, master)
	return replica
}

// awaitReplica waits until a replica has all that is written.
func awaitReplica(t *testing.T, master *server) {
	t.Helper()
	c := master.client(t)
	eventually(t, "a replica", func() error {
		n, err := c.DoMulti(t.Context(), // what is published is replicated, too, whatever node has the slot
			c.B().Arbitrary("PUBLISH").Args("a", "b").Build(), c.B().Wait().Numreplicas(1).Timeout(1000).Build(),
		)[1].ToInt64()
		if err == nil && n == 0 {
			err = errors.New("none has all")
		}
		return err
	})
}

// replicatedCalls are those that replicas are waited for.
var replicatedCalls = []string{"Create", "Replace", "End", "EndTagged", "Mark", "Once", "Sweep"}

func TestReplicasAreWaitedFor(t *testing.T) {
	t.Parallel()
	master := launch(t, "--repl-diskless-sync-delay", "0")
	replica := replicate(t, master)
	const timeout = 500 * time.Millisecond
	s := openWith(t, Options{Addresses: []string{master.addr()}, WaitReplicas: 1, Timeout: timeout})
	c := replica.client(t)
	for range 200 {
		key := create(t, s, record())
		n, err := c.Do(t.Context(), c.B().Exists().Key(s.layout.of(key).session(key)).Build()).ToInt64()
		if err != nil || n != 1 {
			t.Fatalf("what was created is not at the replica: %v", err)
		}
	}
	claimed := random[session.Key]()
	if err := s.Once(t.Context(), claimed, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	tag := random[session.Tag]()
	key := create(t, s, record(tag))
	for _, name := range replicatedCalls {
		if err := calls(s, key, tag)[name](t.Context()); err != nil && !isAnswer(err) {
			t.Errorf("%s: %v", name, err)
		}
	}

	replica.signal(syscall.SIGSTOP)
	wantUnknown(t, "Create", s.Create(t.Context(), random[session.Key](), record())) // from now on it has not all
	key = random[session.Key]()
	all := calls(s, key, random[session.Tag]())
	all["Once again"] = func(ctx context.Context) error { return s.Once(ctx, claimed, time.Now().Add(time.Hour)) }
	for name, call := range all {
		begun := time.Now()
		err := call(t.Context())
		took := time.Since(begun)
		waits := false
		for _, other := range append(replicatedCalls, "Once again") {
			waits = waits || name == other
		}
		if waits {
			wantUnknown(t, name, err)
			if !errors.Is(err, errTooFew) {
				t.Errorf("%s: error = %v, want %v", name, err, errTooFew)
			}
		} else if err != nil && !isAnswer(err) {
			t.Errorf("%s: %v", name, err)
		} else if took > timeout/2 {
			t.Errorf("%s waits %v for a replica", name, took)
		}
		if took > timeout+timeout/2 {
			t.Errorf("%s took %v with a time-out of %v", name, took, timeout)
		}
	}
	if n, err := strconv.Atoi(strings.TrimPrefix(master.must(t, "DBSIZE"), ":")); err != nil || n < 200 {
		t.Errorf("the master has %d keys, %v", n, err)
	}
	replica.signal(syscall.SIGCONT)
	eventually(t, "Create", func() error { return s.Create(t.Context(), random[session.Key](), record()) })
	if err := s.Once(t.Context(), claimed, time.Now().Add(time.Hour)); err != session.ErrExists {
		t.Errorf("Once of a claim that is at the replica: error = %v, want %v", err, session.ErrExists)
	}
}

// A writer that waits for a replica keeps no reader waiting.
func TestReadersDoNotWaitForReplicas(t *testing.T) {
	t.Parallel()
	master := launch(t)
	const timeout = 2 * time.Second
	s := openWith(t, Options{Addresses: []string{master.addr()}, WaitReplicas: 1, Timeout: timeout})
	e := follow(s)
	wantTrust(t, s, session.Key{})
	doubts := e.doubts.Load()
	done := make(chan error)
	go func() { done <- s.Create(context.Background(), random[session.Key](), record()) }()
	begun := time.Now()
	for range 20 {
		if _, err := s.Load(t.Context(), random[session.Key]()); err != session.ErrAbsent {
			t.Errorf("Load: %v", err)
		}
	}
	if took := time.Since(begun); took > timeout/2 {
		t.Errorf("reading took %v while a write waited", took)
	}
	wantUnknown(t, "Create", <-done)
	if e.doubts.Load() != doubts {
		t.Error("a connection of a write puts in doubt what was read")
	}
}

// launchPairs starts a Cluster of three masters with a replica each.
func launchPairs(t *testing.T, args ...string) (masters, replicas []*server) {
	t.Helper()
	dir := t.TempDir()
	args = append([]string{"--repl-diskless-sync-delay", "0"}, args...)
	masters, err := launchCluster(dir, args...)
	for _, node := range masters {
		t.Cleanup(node.kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	for i, master := range masters {
		bus, err := freePort()
		if err != nil {
			t.Fatal(err)
		}
		home := filepath.Join(dir, fmt.Sprint("replica", i))
		if err := os.Mkdir(home, 0o700); err != nil {
			t.Fatal(err)
		}
		replica, err := newServer(home, append([]string{"--cluster-enabled", "yes", "--cluster-port", bus}, args...)...)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(replica.kill)
		replicas = append(replicas, replica)
		replica.must(t, "CLUSTER", "MEET", "127.0.0.1", master.port, master.args[3])
		c := master.client(t)
		id, err := c.Do(t.Context(), c.B().ClusterMyid().Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "replicate", func() error {
			answer, err := replica.say("CLUSTER", "REPLICATE", id)
			if err == nil && answer != "+OK" {
				err = errors.New(answer)
			}
			return err
		})
	}
	for i, node := range append(slices.Clone(masters), replicas...) {
		if i < len(masters) {
			awaitReplica(t, node)
		}
		c := node.client(t)
		eventually(t, "a cluster whose nodes agree", func() error {
			known, err := c.Do(t.Context(), c.B().ClusterNodes().Build()).ToString()
			if err == nil && (strings.Count(known, "slave") != len(replicas) || strings.Contains(known, "fail")) {
				err = errors.New(known)
			}
			return err
		})
	}
	return masters, replicas
}

// In a Cluster each node's replicas are waited for, and a node that has not what
// is asked for names the one that has.
func TestReplicasOfAClusterAreWaitedFor(t *testing.T) {
	t.Parallel()
	nodes, replicas := launchPairs(t)
	const timeout = 2 * time.Second
	s := openWith(t, Options{Addresses: []string{nodes[0].addr()}, Cluster: true, WaitReplicas: 1, Timeout: timeout})
	var key session.Key
	for range 30 {
		tag := random[session.Tag]()
		key = create(t, s, record(tag, random[session.Tag]()))
		if endings, err := s.EndTagged(t.Context(), tag, session.Logout, session.Scope{}); err != nil || len(endings) != 1 {
			t.Fatalf("EndTagged = %v, %v", endings, err)
		}
	}
	if _, err := s.Sweep(t.Context(), session.Limits{Now: time.Now(), Idle: time.Hour}); err != nil {
		t.Errorf("Sweep: %v", err)
	}

	// Whom it takes for the masters is wrong.
	wrong := slices.Clone(*s.following.masters.Load())
	for i, sp := range wrong {
		for n, node := range nodes {
			if sp.addr == node.addr() {
				wrong[i].addr = nodes[(n+1)%3].addr()
			}
		}
	}
	s.following.masters.Store(&wrong)
	create(t, s, record(random[session.Tag]()))

	// A slot that is being moved.
	n := s.layout.number(key)
	m := newMover(t, nodes)
	number := slot(strconv.Itoa(n))
	from := m.owner(int64(number))
	to := (from + 1) % 3
	m.do(to, "CLUSTER", "SETSLOT", fmt.Sprint(number), "IMPORTING", m.ids[from])
	m.do(from, "CLUSTER", "SETSLOT", fmt.Sprint(number), "MIGRATING", m.ids[to])
	claimed := key
	claimed[31]++
	if err := s.Once(t.Context(), claimed, time.Now().Add(time.Hour)); err != nil {
		t.Errorf("Once in a slot that is being moved: %v", err)
	}
	m.do(from, "CLUSTER", "SETSLOT", fmt.Sprint(number), "STABLE")
	m.do(to, "CLUSTER", "SETSLOT", fmt.Sprint(number), "STABLE")

	for _, replica := range replicas {
		replica.signal(syscall.SIGSTOP)
	}
	err := s.Create(t.Context(), random[session.Key](), record())
	wantUnknown(t, "Create", err)
	if !errors.Is(err, errTooFew) {
		t.Errorf("Create: error = %v, want %v", err, errTooFew)
	}
}
