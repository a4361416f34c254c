package main

import (
	"bufio"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	jose "github.com/go-jose/go-jose/v4"

	"sessiongate/e2e/gatewaytest"
)

// online runs check -online, and tells its exit code and lines.
func online(t *testing.T, config string) (code int, out, said string) {
	t.Helper()
	code, out, said = sessiongate(t, "check", "-online", "-config", config)
	return code, out, said
}

func TestCheckOnlineAsksProvidersAndStore(t *testing.T) {
	t.Parallel()
	w := redisWorld(t, 1, nil)
	w.Start()
	code, out, said := online(t, w.Gateway.Config())
	if code != 0 || !containsAll(out, "ok: apps[0].oidc: "+w.Issuer+" answers, with 1 key", "is open in another process, a running gateway most likely") {
		t.Errorf("beside a running gateway: exit code %d\n%s%s", code, out, said)
	}
	if !w.Gateway.Ready() {
		t.Error("the gateway was disturbed")
	}
	w.Gateway.Stop()
	if code, out, said := online(t, w.Gateway.Config()); code != 0 || !containsAll(out, "can be opened, and its directory written to") {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
	w.Down()
	if code, out, said := online(t, w.Gateway.Config()); code != 1 ||
		!containsAll(out, "WRONG: apps[0].oidc: oidc: discovery: ", "; start the provider, or correct issuer") || !containsAll(said, "1 thing that the gateway needs") {
		t.Errorf("without the provider: exit code %d\n%s%s", code, out, said)
	}

	// Without -online nobody is asked.
	if code, out, _ := sessiongate(t, "check", "-config", w.Gateway.Config()); code != 0 || strings.Contains(out, "WRONG") {
		t.Errorf("without -online: exit code %d\n%s", code, out)
	}
}

func TestCheckOnlineOfAStoreThatCannotBe(t *testing.T) {
	t.Parallel()
	w := redisWorld(t, 1, map[string]any{"bbolt": map[string]any{"path": "/proc/self/sessions.db"}})
	if code, out, said := online(t, w.Gateway.Config()); code != 1 || !containsAll(out, "WRONG: session.store.bbolt: boltstore: open /proc/self/sessions.db") {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
	// The gateway would not start with it, and leave it as it is.
	text := filepath.Join(t.TempDir(), "notes.txt")
	write(t, text, "Not sessions.\n")
	setStore(t, w.Gateway, map[string]any{"bbolt": map[string]any{"path": text}})
	if code, out, said := online(t, w.Gateway.Config()); code != 1 || !containsAll(out, "WRONG: session.store.bbolt: boltstore: open "+text, "it is a file of something else") {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
	file := filepath.Join(t.TempDir(), "new", "sessions.db")
	setStore(t, w.Gateway, map[string]any{"bbolt": map[string]any{"path": file}})
	if code, out, said := online(t, w.Gateway.Config()); code != 0 || !containsAll(out, "does not exist yet, and can be made") {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
}

func TestCheckOnlineOfRedis(t *testing.T) {
	t.Parallel()
	server := gatewaytest.NewRedis(t)
	w := redisWorld(t, 1, server.Store(map[string]any{"password": "canary-wrong"}))
	tellRedis(t, server.Address(), "CONFIG SET requirepass canary-right")
	if code, out, said := online(t, w.Gateway.Config()); code != 1 || !containsAll(out, "WRONG: session.store.redis: ", "; correct username and password") {
		t.Errorf("a wrong password: exit code %d\n%s%s", code, out, said)
	}
	tellRedis(t, server.Address(), "AUTH canary-right", `CONFIG SET requirepass ""`)
	setStore(t, w.Gateway, server.Store(nil))
	if code, out, said := online(t, w.Gateway.Config()); code != 0 ||
		!containsAll(out, "ok: session.store.redis: "+server.Address()+": Redis ", "appendfsync always: what was acknowledged", "ok: session.store.redis: reads, writes and scripts work") {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
	tellRedis(t, server.Address(), "CONFIG SET appendfsync everysec")
	if code, out, _ := online(t, w.Gateway.Config()); code != 0 || !containsAll(out, "warning: session.store.redis: "+server.Address()+": appendfsync everysec", "; set appendfsync always") {
		t.Errorf("a warning: exit code %d\n%s", code, out)
	}
	tellRedis(t, server.Address(), "CONFIG SET maxmemory-policy volatile-ttl", "CONFIG SET maxmemory 50mb")
	if code, out, said := online(t, w.Gateway.Config()); code != 1 || !containsAll(out, "WRONG: session.store.redis: ", "; set maxmemory-policy noeviction") {
		t.Errorf("eviction: exit code %d\n%s%s", code, out, said)
	}
	server.Kill()
	if code, out, said := online(t, w.Gateway.Config()); code != 1 || !containsAll(out, "connection refused; start the server, or correct addresses") || !containsAll(said, "1 thing that the gateway needs is down") {
		t.Errorf("without the server: exit code %d\n%s%s", code, out, said)
	}
}

// Something that is no Redis, or an old one, repeats what it was sent.
func TestCheckOnlineOfSomethingThatIsNoRedis(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var command []string
				for lines, more := bufio.NewScanner(conn), 0; lines.Scan(); {
					if n, ok := strings.CutPrefix(lines.Text(), "*"); ok {
						command, more = nil, 2
						_, _ = fmt.Sscan(n, &more)
						more *= 2 // each word comes behind its length
						continue
					}
					command = append(command, lines.Text())
					if more--; more == 0 {
						_, _ = fmt.Fprintf(conn, "-ERR unknown command `%s`, with args beginning with: `%s`\r\n", command[1], strings.Join(command[2:], "`, `"))
					}
				}
			}()
		}
	}()
	dir, config := site(t, settings{redis: listener.Addr().String()})
	write(t, filepath.Join(dir, "password"), canary)
	text := strings.Replace(settings{redis: listener.Addr().String()}.String(), "redis: {", `redis: {password: "${file:password}", `, 1)
	write(t, config, text)
	if code, out, said := online(t, config); code != 1 || !containsAll(out, "unknown command", "; use Redis 6.2 or later, or Valkey") ||
		!containsAll(said, "2 things that the gateway needs are down") {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
}

// What the configuration asks for has to be there: logins work without it, and
// nobody notices that logouts do less than they should.
func TestCheckOnlineTellsWhatAProviderLacks(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	keys, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: &private.PublicKey, KeyID: "1", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	issuer := "http://" + listener.Addr().String()
	provider := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/keys" {
			_, _ = w.Write(keys)
			return
		}
		_, _ = w.Write([]byte(strings.ReplaceAll(`{"issuer":"I","authorization_endpoint":"I/a","token_endpoint":"I/t","jwks_uri":"I/keys","token_endpoint_auth_methods_supported":["private_key_jwt"]}`, "I", issuer)))
	}))
	provider.Listener.Close()
	provider.Listener = listener
	provider.Start()
	t.Cleanup(provider.Close)
	_, config := site(t, settings{})
	write(t, config, strings.Replace(settings{}.String(), "http://127.0.0.1:1\n", issuer+"\n", 1))
	code, out, said := online(t, config)
	if code != 0 || !containsAll(out, "warning: apps[0].oidc: client_auth ", "no end_session_endpoint", "no revocation_endpoint") {
		t.Errorf("exit code %d\n%s%s", code, out, said)
	}
}
