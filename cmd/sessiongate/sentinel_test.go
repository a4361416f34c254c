package main

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
)

// sentinelUser is the ACL of docs/operations.md for a user of the Sentinels.
func sentinelUser(t *testing.T, password string) string {
	t.Helper()
	text, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	block := regexp.MustCompile("(?s)ACL SETUSER (gateway .*?)\n *```").FindSubmatch(text)
	if block == nil {
		t.Fatal("docs/operations.md has no ACL SETUSER gateway")
	}
	return "user " + strings.Join(strings.Fields(strings.ReplaceAll(string(block[1]), "PASSWORD", password)), " ")
}

// refusedBy tells how many kinds of things a Sentinel did not let a user do.
func refusedBy(t *testing.T, sentinel string) (n int) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", sentinel, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := fmt.Fprint(conn, "AUTH auditor x\r\nACL LOG\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := fmt.Fscanf(conn, "+OK\r\n*%d\r\n", &n); err != nil {
		t.Fatal(err)
	}
	return n
}

// Servers and Sentinels have users and passwords of their own.
func TestMigrateAndCheckOnlineFindTheServerBySentinels(t *testing.T) {
	t.Parallel()
	const server, sentinel = "canary-of-the-server", "canary-of-the-sentinel"
	master := gatewaytest.NewRedis(t)
	tellRedis(t, master.Address(), "CONFIG SET requirepass "+server)
	s := gatewaytest.NewSentinel(t, "shop", master, "sentinel auth-pass shop "+server, sentinelUser(t, sentinel), "user default off", "user auditor on nopass +acl|log",
		"sentinel monitor far 192.0.2.1 6379 1") // RFC 5737: nobody is there
	file := filepath.Join(t.TempDir(), "password")
	write(t, file, sentinel+"\n")
	store := func(name, username, password string) map[string]any {
		return map[string]any{"redis": map[string]any{
			"addresses": []string{s.Address()}, "password": server,
			"sentinel": map[string]any{"master": name, "username": username, "password": password},
		}}
	}
	behind := store("shop", "gateway", "${file:"+file+"}")

	w := redisWorld(t, 1, nil)
	w.Start()
	live, ended := loggedIn(t, w), loggedIn(t, w)
	over := ended.Steal(w, ended.Session())
	if err := ended.Logout(); err != nil {
		t.Fatal(err)
	}
	w.Gateway.Stop()
	bolt := setStore(t, w.Gateway, behind)
	if code, out, said := online(t, w.Gateway.Config()); code != 0 ||
		!containsAll(out, "ok: session.store.redis: "+master.Address()+": Redis ", "ok: session.store.redis: reads, writes and scripts work", "it has no replica, and nothing to fail over to") {
		t.Errorf("check: exit code %d\n%s%s", code, out, said)
	}
	for _, row := range []struct {
		name       string
		store      map[string]any
		want, mend string
	}{
		{"another password", store("shop", "gateway", "canary-wrong"), "WRONGPASS", "; correct username and password, or sentinel.username and sentinel.password"},
		{"another user", store("shop", "nobody", sentinel), "WRONGPASS", "; correct username and password, or sentinel.username and sentinel.password"},
		{"no password", store("shop", "", ""), "NOAUTH", "; correct username and password, or sentinel.username and sentinel.password"},
		{"a master on another machine, without TLS", store("far", "gateway", sentinel), "192.0.2.1:6379: plain TCP to other than a loopback address", "; set tls, or insecure_plaintext"},
		{"a master that it does not know", store("other", "gateway", sentinel), "No such master", "; correct sentinel.master"},
	} {
		setStore(t, w.Gateway, row.store)
		code, out, said := online(t, w.Gateway.Config())
		if code != 1 || !containsAll(out, "WRONG: session.store.redis: ", row.want, row.mend) {
			t.Errorf("%s: exit code %d\n%s%s", row.name, code, out, said)
		}
	}
	tellRedis(t, s.Address(), "AUTH auditor x", "ACL LOG RESET") // of those who could not log in
	setStore(t, w.Gateway, behind)

	if code, out, said := sessiongate(t, "migrate", "-from", "bolt", "-to", "redis", "-config", w.Gateway.Config(), "-bolt", bolt); code != 0 ||
		!containsAll(out, "live sessions      1        0              0     0", "ended sessions      1        0              0     0") {
		t.Errorf("migrate: exit code %d\n%s%s", code, out, said)
	}
	w.Gateway.Start()
	wantCall(t, live, http.StatusOK, "")
	wantCall(t, over, http.StatusUnauthorized, "session_ended")
	w.Gateway.Stop()
	if n := refusedBy(t, s.Address()); n != 0 {
		t.Errorf("the Sentinel has refused %d things", n)
	}

	back := filepath.Join(t.TempDir(), "back.db")
	if code, out, said := sessiongate(t, "migrate", "-from", "redis", "-to", "bolt", "-config", w.Gateway.Config(), "-bolt", back); code != 0 ||
		!containsAll(out, "live sessions      1        0              0     0") {
		t.Errorf("back: exit code %d\n%s%s", code, out, said)
	}
	s.Kill()
	if code, out, said := online(t, w.Gateway.Config()); code != 1 || !containsAll(out, "WRONG: session.store.redis: ", "connection refused") {
		t.Errorf("without the Sentinel: exit code %d\n%s%s", code, out, said)
	}
	if code, out, said := sessiongate(t, "migrate", "-from", "bolt", "-to", "redis", "-config", w.Gateway.Config(), "-bolt", back); code != 1 || !containsAll(said, "connection refused") {
		t.Errorf("without the Sentinel: exit code %d\n%s%s", code, out, said)
	}
}
