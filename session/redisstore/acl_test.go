package redisstore

import (
	"crypto/rand"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"

	"sessiongate/session"
)

// documented returns the commands of docs/operations.md that make a user, each as
// the words after ACL SETUSER.
func documented(t *testing.T, user string) []string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile(`(?s)ACL SETUSER (` + user + ` .*?)\n(` + "```" + `|ACL )`).FindSubmatch(text)
	if block == nil {
		t.Fatalf("docs/operations.md has no ACL SETUSER %s", user)
	}
	return strings.Fields(strings.ReplaceAll(string(block[1]), "PASSWORD", "canary"))
}

// as are the credentials of a user of the test.
func as(username string) func() (string, string, error) {
	return func() (string, string, error) { return username, "canary", nil }
}

// refused are the commands that servers have refused a user.
func refused(t *testing.T, username string, nodes []*server) []string {
	t.Helper()
	var all []string
	for _, node := range nodes {
		c := node.client(t)
		log, err := c.Do(t.Context(), c.B().Arbitrary("ACL", "LOG", "1000").Build()).ToArray()
		if err != nil {
			t.Fatal(err)
		}
		for _, entry := range log {
			fields, err := entry.AsStrMap()
			if err != nil {
				t.Fatal(err)
			}
			if fields["username"] == username {
				all = append(all, fields["object"])
			}
		}
	}
	return all
}

// exercise does all that a gateway and its commands do with a store. What comes of
// it is the matter of other tests.
func exercise(t *testing.T, s *Store) {
	t.Helper()
	ctx := t.Context()
	tag, key := random[session.Tag](), random[session.Key]()
	_ = s.Ping(ctx)
	_ = s.Create(ctx, key, record(tag))
	_ = s.Create(ctx, random[session.Key](), record(tag)) // looks at the other
	_, _ = s.Load(ctx, key)
	_ = s.Replace(ctx, key, 1, []byte("new"))
	_ = s.Touch(ctx, []session.Touch{{Key: key, At: time.Now()}})
	_, _ = s.Tagged(ctx, tag, session.Key{}, 10)
	_ = s.Mark(ctx, tag, session.Mark{Reason: session.BackChannel, BeganBefore: time.Now(), Until: time.Now().Add(time.Hour)})
	_ = s.Once(ctx, key, time.Now().Add(time.Hour))
	_ = s.Once(ctx, key, time.Now().Add(-time.Hour))
	if l, err := s.Acquire(ctx, key, time.Minute); err == nil {
		_ = s.Renew(ctx, l, time.Minute)
		_, _ = s.leaseLeft(ctx, key)
		_ = s.Release(ctx, l)
	}
	_, _ = s.Count(ctx)
	items := []session.Item{
		{Key: random[session.Key](), Record: new(record(random[session.Tag]()))},
		{Key: random[session.Key](), Ended: session.Logout, Until: time.Now().Add(time.Hour)},
		{Key: random[session.Key](), Mark: &session.Mark{BeganBefore: time.Now(), Until: time.Now().Add(time.Hour)}, Until: time.Now().Add(time.Hour)},
	}
	_, _ = s.Import(ctx, items)
	_, _ = s.Import(ctx, items)
	_ = s.Export(ctx, func([]session.Item) error { return nil })
	_, _ = s.End(ctx, key, session.Logout, session.Condition{})
	_, _ = s.EndTagged(ctx, tag, session.Revoked, session.Scope{})
	old := record()
	old.Expires = time.Now().Add(-session.TombstoneGrace - time.Hour) // it leaves no tombstone
	_ = s.Create(ctx, random[session.Key](), old)
	_, _ = s.Sweep(ctx, session.Limits{Now: time.Now(), Idle: time.Minute, Lifetime: time.Hour})
	s.Inspect(ctx)
}

// The documented user may do all that the store does, and nothing that it does not.
func TestTheDocumentedUserIsEnoughAndNotTooMuch(t *testing.T) {
	t.Parallel()
	sv := launch(t)
	own, err := launchCluster(t.TempDir())
	for _, node := range own {
		t.Cleanup(node.kill)
	}
	if err != nil {
		t.Fatal(err)
	}
	words := documented(t, "sessiongate")
	nodes := append([]*server{sv}, own...)
	for _, node := range nodes {
		node.must(t, append([]string{"ACL", "SETUSER"}, words...)...)
	}
	for _, o := range []Options{
		{Addresses: []string{sv.addr()}, DB: 1},
		{Addresses: []string{own[0].addr(), own[1].addr()}, Cluster: true},
		{Addresses: []string{sv.addr()}, WaitReplicas: 1, Timeout: 100 * time.Millisecond},
	} {
		o.Prefix, o.Credentials = "sessiongate:", as("sessiongate")
		exercise(t, openWith(t, o))
	}
	if all := refused(t, "sessiongate", nodes); len(all) > 0 {
		t.Errorf("refused: %v", all)
	}
	called := map[string]bool{"asking": true} // which comes while slots move
	for _, node := range nodes {
		c := node.client(t)
		stats, err := c.Do(t.Context(), c.B().Info().Section("commandstats").Build()).ToString()
		if err != nil {
			t.Fatal(err)
		}
		for _, row := range regexp.MustCompile(`cmdstat_([a-z|-]+):calls=[1-9]`).FindAllStringSubmatch(stats, -1) {
			called[row[1]] = true
		}
	}
	for _, word := range words {
		if name, ok := strings.CutPrefix(word, "+"); ok && !called[name] {
			t.Errorf("%s is granted, and nothing called it", word)
		}
	}
}

func TestTheDocumentedUserHasNoOtherKeys(t *testing.T) {
	t.Parallel()
	username := rand.Text()
	shared.must(t, append([]string{"ACL", "SETUSER", username}, documented(t, "sessiongate")[1:]...)...)
	other := openWith(t, Options{Addresses: []string{shared.addr()}, Prefix: "other:", Credentials: as(username)})
	if err := other.Create(t.Context(), random[session.Key](), record()); err == nil || !strings.Contains(err.Error(), "NOPERM") {
		t.Errorf("Create with another prefix: %v", err)
	}
}
