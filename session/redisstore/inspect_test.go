package redisstore

import (
	"crypto/tls"
	"strings"
	"testing"
	"time"
)

// wantFindings wants that exactly those texts, of findings other than good ones,
// are told, each with what to do, and those of good ones among others.
func wantFindings(t *testing.T, s *Store, grade Grade, bad []string, good ...string) {
	t.Helper()
	var worst Grade
	for _, f := range s.Inspect(t.Context()) {
		worst = max(worst, f.Grade)
		found := false
		list := &bad
		if f.Grade == Good {
			list = &good
		} else if f.Fix == "" {
			t.Errorf("nothing is said to do about %q", f.What)
		}
		for n, text := range *list {
			if strings.Contains(f.What, text) {
				*list = append((*list)[:n:n], (*list)[n+1:]...)
				found = true
				break
			}
		}
		if !found && f.Grade != Good {
			t.Errorf("found %v: %s; %s", f.Grade, f.What, f.Fix)
		}
	}
	if worst != grade {
		t.Errorf("the worst is %v, want %v", worst, grade)
	}
	for _, text := range append(bad, good...) {
		t.Errorf("not found: %s", text)
	}
}

func TestInspectTellsWhichPromisesTheSettingsKeep(t *testing.T) {
	t.Parallel()
	sv := launch(t, "--appendonly", "yes", "--appendfsync", "always")
	s := openAt(t, sv)
	set := func(words ...string) { sv.must(t, append([]string{"CONFIG", "SET"}, words...)...) }
	wantFindings(t, s, Good, nil, "Redis", "noeviction", "appendfsync always", "reads, writes and scripts work", "the clocks of this machine and of the server differ by less")

	set("appendfsync", "everysec")
	wantFindings(t, s, Unwise, []string{"the last second"})
	set("appendfsync", "no")
	wantFindings(t, s, Unwise, []string{"half a minute"})
	set("appendonly", "no")
	wantFindings(t, s, Unwise, []string{"logs everybody out"})
	set("save", `"60 1"`)
	wantFindings(t, s, Unwise, []string{"an old snapshot"})
	set("appendonly", "yes")
	set("appendfsync", "always")
	set("maxmemory-policy", "allkeys-lru")
	wantFindings(t, s, Unwise, []string{"would log users out"})
	set("maxmemory", "100mb")
	wantFindings(t, s, Wrong, []string{"logs users out at random"})
	set("maxmemory-policy", "noeviction")
	set("min-replicas-to-write", "1")
	wantFindings(t, s, Wrong, []string{"min-replicas-to-write is 1", "it cannot be used: "})
}

func TestInspectCountsReplicas(t *testing.T) {
	t.Parallel()
	sv := launch(t, "--appendonly", "yes", "--appendfsync", "everysec", "--repl-diskless-sync-delay", "0")
	waiting := openWith(t, Options{Addresses: []string{sv.addr()}, WaitReplicas: 1, Timeout: 2 * time.Second})
	all := waiting.Inspect(t.Context())
	if !hasFinding(all, Wrong, "it has 0 replicas, and wait_replicas is 1") {
		t.Errorf("found %+v", all)
	}
	replica := launch(t, "--replicaof", "127.0.0.1", sv.port, "--appendonly", "yes")
	for begun := time.Now(); sv.must(t, "WAIT", "1", "100") != ":1"; {
		if time.Since(begun) > patient {
			t.Fatal("the replica does not follow")
		}
	}
	wantFindings(t, waiting, Unwise, []string{"min-replicas-to-write 0"}, "1 replicas, and wait_replicas 1", "on a replica")
	wantFindings(t, openAt(t, sv), Unwise, []string{"min-replicas-to-write 0", "wait_replicas 0", "the last second"})
	sv.must(t, "CONFIG", "SET", "min-replicas-to-write", "1")
	wantFindings(t, waiting, Good, nil)
	wantFindings(t, openAt(t, replica), Wrong, []string{"it is a replica", "it cannot be used: ", "the last second"})
}

func hasFinding(all []Finding, grade Grade, text string) bool {
	for _, f := range all {
		if f.Grade == grade && strings.Contains(f.What, text) && f.Fix != "" {
			return true
		}
	}
	return false
}

func TestInspectComparesClocks(t *testing.T) {
	t.Parallel()
	for _, row := range []struct {
		ahead time.Duration
		grade Grade
	}{{0, Good}, {2 * time.Second, Unwise}, {-2 * time.Second, Unwise}, {6 * time.Second, Wrong}, {-6 * time.Second, Wrong}} {
		s := openWith(t, Options{Addresses: []string{shared.addr()}, clock: func() time.Time { return time.Now().Add(row.ahead) }})
		found := false
		for _, f := range s.Inspect(t.Context()) {
			found = found || f.Grade == row.grade && strings.Contains(f.What, "the clocks of this machine and of the server differ by")
		}
		if !found {
			t.Errorf("clocks that are %v apart are not of grade %v", row.ahead, row.grade)
		}
	}
}

func TestInspectOfACluster(t *testing.T) {
	t.Parallel()
	all := openCluster(t, "").Inspect(t.Context())
	if !hasGood(all, "the Cluster is whole, with 3 masters") || !hasGood(all, "reads, writes and scripts work") || !hasFinding(all, Unwise, "nothing to fail over to") {
		t.Errorf("found %+v", all)
	}
	all = openWith(t, Options{Addresses: []string{cluster[0].addr()}}).Inspect(t.Context())
	if !hasFinding(all, Wrong, "it is a node of a Cluster") {
		t.Errorf("without cluster: true found %+v", all)
	}
	all = openWith(t, Options{Addresses: []string{shared.addr()}, Cluster: true, Timeout: 2 * time.Second}).Inspect(t.Context())
	if len(all) != 1 || all[0].Grade != Wrong || !strings.Contains(all[0].Fix, "remove cluster: true") {
		t.Errorf("of a server that is no Cluster found %+v", all)
	}
}

func hasGood(all []Finding, text string) bool {
	for _, f := range all {
		if f.Grade == Good && strings.Contains(f.What, text) {
			return true
		}
	}
	return false
}

func TestInspectSaysWhatToDoAboutAServerThatCannotBeUsed(t *testing.T) {
	t.Parallel()
	protected := launch(t, "--requirepass", "canary")
	for _, row := range []struct {
		name, want string
		options    Options
	}{
		{"no server", "start the server", Options{Addresses: []string{"127.0.0.1:1"}}},
		{"no password", "correct username and password", Options{Addresses: []string{protected.addr()}}},
		{"a wrong password", "correct username and password", Options{Addresses: []string{protected.addr()},
			Credentials: func() (string, string, error) { return "", "wrong", nil }}},
		{"no TLS at the port", "if it speaks no TLS", Options{Addresses: []string{shared.addr()}, TLS: func() (*tls.Config, error) { return &tls.Config{}, nil }}},
	} {
		t.Run(row.name, func(t *testing.T) {
			row.options.Timeout = 2 * time.Second
			all := openWith(t, row.options).Inspect(t.Context())
			if len(all) != 1 || all[0].Grade != Wrong || !strings.Contains(all[0].Fix, row.want) {
				t.Errorf("found %+v, want %q", all, row.want)
			}
		})
	}
}

// A hosted server often lets nobody ask how it is set up.
func TestInspectWithoutTheRightToAsk(t *testing.T) {
	t.Parallel()
	sv := launch(t)
	sv.must(t, "ACL", "SETUSER", "shop", "on", ">canary", "~*", "&*", "+@all", "-config", "-info")
	s := openWith(t, Options{Addresses: []string{sv.addr()}, Credentials: func() (string, string, error) { return "shop", "canary", nil }})
	wantFindings(t, s, Unwise, []string{"INFO may not be asked", "maxmemory-policy, appendonly, appendfsync, save, min-replicas-to-write could not be checked"}, "reads, writes and scripts work")
}
