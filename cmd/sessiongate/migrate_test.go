package main

import (
	"bytes"
	"crypto/rand"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/session"
	"sessiongate/session/boltstore"
)

// setStore gives a gateway that does not run another store, and returns the path of
// the former file.
func setStore(t *testing.T, g *gatewaytest.Gateway, store map[string]any) (file string) {
	t.Helper()
	text, err := os.ReadFile(g.Config())
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Session struct {
			Store struct{ Bbolt struct{ Path string } }
		}
	}
	var all map[string]any
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &all); err != nil {
		t.Fatal(err)
	}
	all["session"].(map[string]any)["store"] = store
	if text, err = json.Marshal(all); err != nil {
		t.Fatal(err)
	}
	write(t, g.Config(), string(text))
	return config.Session.Store.Bbolt.Path
}

func TestMigrateMovesSessionsThatUsersGoOnWith(t *testing.T) {
	t.Parallel()
	server := gatewaytest.NewRedis(t)
	w := redisWorld(t, 1, nil)
	w.Start()
	live, ended := loggedIn(t, w), loggedIn(t, w)
	over := ended.Steal(w, ended.Session())
	if err := ended.Logout(); err != nil {
		t.Fatal(err)
	}
	file := setStore(t, w.Gateway, server.Store(nil)) // the running gateway refuses it: it needs a restart
	args := []string{"migrate", "-from", "bolt", "-to", "redis", "-config", w.Gateway.Config(), "-bolt", file}
	if code, _, said := sessiongate(t, args...); code != 1 || !containsAll(said, "is open in another process") {
		t.Errorf("beside a running gateway: exit code %d, %s", code, said)
	}
	w.Gateway.Stop()
	for _, want := range [][]string{{"moved", "live sessions      1        0              0     0", "ended sessions      1        0              0     0"},
		{"live sessions      0        0              1     0", "ended sessions      0        0              1     0"}} {
		if code, out, said := sessiongate(t, args...); code != 0 || !containsAll(out, want...) {
			t.Errorf("exit code %d, want %q in\n%s%s", code, want, out, said)
		}
	}
	w.Gateway.Start()
	wantCall(t, live, http.StatusOK, "")
	wantCall(t, over, http.StatusUnauthorized, "session_ended")

	// And back.
	w.Gateway.Stop()
	back := filepath.Join(filepath.Dir(file), "back.db")
	if code, out, said := sessiongate(t, "migrate", "-from", "redis", "-to", "bolt", "-config", w.Gateway.Config(), "-bolt", back); code != 0 ||
		!containsAll(out, "live sessions      1        0              0     0") {
		t.Errorf("back: exit code %d\n%s%s", code, out, said)
	}
	setStore(t, w.Gateway, map[string]any{"bbolt": map[string]any{"path": back}})
	w.Gateway.Start()
	wantCall(t, live, http.StatusOK, "")
	wantCall(t, over, http.StatusUnauthorized, "session_ended")
}

func TestMigrateFromOneRedisToAnother(t *testing.T) {
	t.Parallel()
	first, second := gatewaytest.NewRedis(t), gatewaytest.NewRedis(t)
	w := redisWorld(t, 1, first.Store(nil))
	w.Start()
	b := loggedIn(t, w)
	w.Gateway.Stop()
	old := filepath.Join(t.TempDir(), "old.yaml")
	text, err := os.ReadFile(w.Gateway.Config())
	if err != nil {
		t.Fatal(err)
	}
	write(t, old, string(text))
	setStore(t, w.Gateway, second.Store(map[string]any{"prefix": "other:"}))
	if code, out, said := sessiongate(t, "migrate", "-from", "redis", "-to", "redis", "-config", w.Gateway.Config(), "-from-config", old); code != 0 {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
	first.Kill()
	w.Gateway.Start()
	wantCall(t, b, http.StatusOK, "")
}

func TestMigrateTellsWhatIsWrong(t *testing.T) {
	t.Parallel()
	dir, onBolt := site(t, settings{})
	onRedis, elsewhere := filepath.Join(dir, "redis.yaml"), filepath.Join(dir, "elsewhere.yaml")
	write(t, onRedis, settings{redis: "127.0.0.1:1", keys: []string{secondKey, testKey}}.String())
	write(t, elsewhere, settings{redis: "127.0.0.1:2"}.String())
	file := filepath.Join(dir, "sessions.db")
	for _, row := range []struct {
		name string
		args []string
		code int
		want string
	}{
		{"from where", []string{"-to", "redis", "-config", onRedis}, 2, "say -from bolt -to redis"},
		{"to something else", []string{"-from", "bolt", "-to", "memcached", "-config", onRedis}, 2, "say -from bolt -to redis"},
		{"no configuration", []string{"-from", "bolt", "-to", "redis"}, 2, "-config FILE is missing"},
		{"no file", []string{"-from", "bolt", "-to", "redis", "-config", onRedis}, 2, "-bolt PATH is missing"},
		{"a file to another", []string{"-from", "bolt", "-to", "bolt", "-config", onRedis, "-bolt", file}, 2, "use mv"},
		{"Redis to itself", []string{"-from", "redis", "-to", "redis", "-config", onRedis}, 2, "-from-config FILE is missing"},
		{"a file between two Redis", []string{"-from", "redis", "-to", "redis", "-config", onRedis, "-from-config", onRedis, "-bolt", file}, 2, "-bolt takes no part"},
		{"two configurations for one Redis", []string{"-from", "bolt", "-to", "redis", "-config", onRedis, "-from-config", onBolt, "-bolt", file}, 2, "-from-config is for moves from Redis to Redis"},
		{"Redis to itself by two configurations", []string{"-from", "redis", "-to", "redis", "-config", onRedis, "-from-config", onRedis}, 2, "name the same sessions"},
		{"to where the keys are others", []string{"-from", "redis", "-to", "redis", "-from-config", onRedis, "-config", elsewhere}, 2, "session.keys: lacks the first key of " + onRedis},
		{"to where the key is the second", []string{"-from", "redis", "-to", "redis", "-from-config", elsewhere, "-config", onRedis}, 1, "127.0.0.1:2"},
		{"a configuration without Redis", []string{"-from", "redis", "-to", "bolt", "-config", onBolt, "-bolt", file}, 2, "session.store.redis: is missing"},
		{"a file that is not there", []string{"-from", "bolt", "-to", "redis", "-config", onRedis, "-bolt", file}, 1, "no such file"},
		{"a Redis that is not there", []string{"-from", "redis", "-to", "bolt", "-config", onRedis, "-bolt", file}, 1, "127.0.0.1:1"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			code, out, said := sessiongate(t, append([]string{"migrate"}, row.args...)...)
			if code != row.code || !containsAll(said, row.want) {
				t.Errorf("exit code %d, want %d, and %q in:\n%s%s", code, row.code, row.want, out, said)
			}
			if _, err := os.Stat(file); err == nil {
				t.Error("the file was made")
			}
		})
	}
}

// A file that cannot be used would be set aside, and an empty one moved: nobody
// would notice.
func TestMigrateOfADamagedFileFails(t *testing.T) {
	t.Parallel()
	server := gatewaytest.NewRedis(t)
	dir := t.TempDir()
	onRedis, file := filepath.Join(dir, "redis.yaml"), filepath.Join(dir, "sessions.db")
	write(t, onRedis, settings{redis: server.Address()}.String())
	_, bolt := site(t, settings{store: file})
	g := start(t, bolt)
	if code := g.stop(); code != 0 {
		t.Fatalf("exit code %d", code)
	}
	if err := os.Truncate(file, int64(2*os.Getpagesize()+1)); err != nil {
		t.Fatal(err)
	}
	args := []string{"migrate", "-from", "bolt", "-to", "redis", "-config", onRedis, "-bolt", file}
	if code, out, said := sessiongate(t, args...); code != 1 || !containsAll(said, "nothing to move") {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
	if code, out, said := sessiongate(t, args...); code != 1 || !containsAll(said, "no such file") {
		t.Errorf("again: exit code %d\n%s%s", code, out, said)
	}
}

// A migration that somebody interrupts says so, and goes on where it is run again.
func TestMigrateIsInterruptedAndRunAgain(t *testing.T) {
	t.Parallel()
	const sessions = 6_000
	server := gatewaytest.NewRedis(t)
	dir := t.TempDir()
	onRedis, file := filepath.Join(dir, "redis.yaml"), filepath.Join(dir, "sessions.db")
	write(t, onRedis, settings{redis: server.Address()}.String())
	store, err := boltstore.Open(file, boltstore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now()
	items := make([]session.Item, sessions)
	for i := range items {
		items[i].Record = &session.Record{Version: 1, Began: now, Created: now, Used: now, Expires: now.Add(time.Hour)}
		_, _ = rand.Read(items[i].Key[:])
	}
	if _, err := store.Import(t.Context(), items); err != nil {
		t.Fatal(err)
	}
	if err := store.Close(); err != nil {
		t.Fatal(err)
	}

	args := []string{"migrate", "-from", "bolt", "-to", "redis", "-config", onRedis, "-bolt", file}
	var out, said bytes.Buffer
	cmd := program(t, args...)
	cmd.Stdout, cmd.Stderr = &out, &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "some have arrived", func() bool {
		n, err := server.Say("DBSIZE")
		return err == nil && n != ":0"
	})
	if err := cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	if code := cmd.ProcessState.ExitCode(); code != 1 || !containsAll(out.String(), "moved  updated") || !containsAll(said.String(), "not everything was moved", "do it again") {
		t.Errorf("interrupted: exit code %d\n%s%s", code, &out, &said)
	}
	var added, there int
	code, again, why := sessiongate(t, args...)
	if line := regexp.MustCompile(`live sessions .*`).FindString(again); code != 0 {
		t.Errorf("again: exit code %d\n%s%s", code, again, why)
	} else if _, err := fmt.Sscanf(line, "live sessions %d 0 %d 0", &added, &there); err != nil || added+there != sessions || added == 0 || there == 0 {
		t.Errorf("again: %q, %v, want some of %d moved now and some before", line, err, sessions)
	}
	if n, err := server.Say("ZCARD", "sessiongate:{0}:used"); err != nil || n != fmt.Sprint(":", sessions) {
		t.Errorf("%s sessions in Redis, %v, want %d", n, err, sessions)
	}
}
