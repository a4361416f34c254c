package main

import (
	"bufio"
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"sessiongate/e2e/gatewaytest"
	"sessiongate/internal/devprovider"
)

var redisUsers = []devprovider.User{{Sub: "ada", Name: "Ada", Email: "ada@example.com"}}

// redisWorld is one of gateways on a Redis, with a page of their own.
func redisWorld(t *testing.T, gateways int, store map[string]any) *gatewaytest.World {
	t.Helper()
	dist := t.TempDir()
	write(t, filepath.Join(dist, "index.html"), "<!doctype html><title>shop</title>")
	return gatewaytest.NewWorld(t, os.Args[0], gatewaytest.Options{
		Users: redisUsers, Gateways: gateways, Store: store,
		Routes: []any{map[string]any{"path": "/", "static": map[string]any{"dir": dist, "fallback": "index.html"}, "auth": "none"}},
	})
}

// loggedIn is a browser with a session.
func loggedIn(t *testing.T, w *gatewaytest.World) *gatewaytest.Browser {
	t.Helper()
	b := w.NewBrowser()
	if _, err := b.Login("ada"); err != nil {
		t.Fatal(err)
	}
	return b
}

// wantCall wants an answer of the API, or a problem of the gateway's, and that the
// cookie is left alone.
func wantCall(t *testing.T, b *gatewaytest.Browser, status int, code string) {
	t.Helper()
	answer, err := b.Call()
	if err != nil || answer.Status != status || answer.Problem.Code != code {
		t.Errorf("call: %v, %v, want %d %s", answer, err, status, code)
	}
	if answer != nil && len(answer.Header["Set-Cookie"]) > 0 {
		t.Error("the answer touches the cookie")
	}
}

// awaitCall waits until what is in memory is believed, or not believed, any more.
func awaitCall(t *testing.T, b *gatewaytest.Browser, status int) {
	t.Helper()
	eventually(t, fmt.Sprintf("an answer of %d", status), func() bool {
		answer, err := b.Call()
		return err == nil && answer.Status == status
	})
}

// tellRedis sends commands on one connection and wants none to fail.
func tellRedis(t *testing.T, address string, commands ...string) {
	t.Helper()
	conn, err := net.DialTimeout("tcp", address, 5*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	answers := bufio.NewReader(conn)
	for _, command := range commands {
		if _, err := fmt.Fprintf(conn, "%s\r\n", command); err != nil {
			t.Fatal(err)
		}
		if line, err := answers.ReadString('\n'); err != nil || strings.HasPrefix(line, "-") {
			t.Fatalf("redis-server: %s: %q, %v", command, line, err)
		}
	}
}

func TestGatewaysOnOneRedisShareTheirSessions(t *testing.T) {
	t.Parallel()
	w := redisWorld(t, 2, gatewaytest.NewRedis(t).Store(nil))
	w.Start()
	b := loggedIn(t, w)
	one, other := b.Via(w.Gateways[0]), b.Via(w.Gateways[1])
	for range 2 { // the second time from memory
		wantCall(t, one, http.StatusOK, "")
		wantCall(t, other, http.StatusOK, "")
	}
	thief := b.Steal(w, b.Session()) // who keeps the cookie when it is cleared
	if err := one.Logout(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the other gateway knows of the logout", func() bool {
		answer, err := thief.Via(w.Gateways[1]).Call()
		return err == nil && answer.Status == http.StatusUnauthorized && answer.Problem.Reason == "logout"
	})
}

// The store's silence is not a logout (DESIGN.md, promise 6), from the first
// moment on.
func TestAGatewayWorksAsFarAsItCanWithoutItsRedis(t *testing.T) {
	t.Parallel()
	server := gatewaytest.NewRedis(t)
	w := redisWorld(t, 1, server.Store(nil))
	w.Start()
	b := loggedIn(t, w)
	w.Gateway.Stop()
	server.Kill()

	w.Gateway.Launch()
	eventually(t, "the gateway serves", func() bool {
		page, err := b.Navigate("/")
		return err == nil && page.Status == http.StatusOK
	})
	if w.Gateway.Ready() {
		t.Error("ready without a store")
	}
	wantCall(t, b, http.StatusServiceUnavailable, "store_unavailable")
	server.Start()
	w.Gateway.AwaitReady()
	awaitCall(t, b, http.StatusOK)

	server.Kill()
	awaitCall(t, b, http.StatusServiceUnavailable)
	wantCall(t, b, http.StatusServiceUnavailable, "store_unavailable")
	if page, err := b.Navigate("/"); err != nil || page.Status != http.StatusOK {
		t.Errorf("the page: %v, %v", page, err)
	}
	server.Start()
	w.Gateway.AwaitReady()
	awaitCall(t, b, http.StatusOK)
}

// A password changes at the server first; what is connected stays, and new
// connections log in when the file is changed, too.
func TestAPasswordOfRedisChangesWithItsFile(t *testing.T) {
	t.Parallel()
	server := gatewaytest.NewRedis(t)
	file := filepath.Join(t.TempDir(), "password")
	write(t, file, "canary-one\n")
	tellRedis(t, server.Address(), "CONFIG SET requirepass canary-one")
	w := redisWorld(t, 1, server.Store(map[string]any{"password": "${file:" + file + "}"}))
	w.Start()
	b := loggedIn(t, w)

	tellRedis(t, server.Address(), "AUTH canary-one", "CONFIG SET requirepass canary-two")
	wantCall(t, b, http.StatusOK, "")
	if !w.Gateway.Ready() {
		t.Error("not ready, though the connections are as they were")
	}
	tellRedis(t, server.Address(), "AUTH canary-two", "CLIENT KILL TYPE normal SKIPME yes")
	eventually(t, "the former password is of no use", func() bool { return !w.Gateway.Ready() })
	awaitCall(t, b, http.StatusServiceUnavailable)
	write(t, file, "canary-two\n")
	eventually(t, "the new password is used", w.Gateway.Ready)
	awaitCall(t, b, http.StatusOK)
	w.Gateway.Stop()
	if log := w.Gateway.Log(); bytes.Contains(log, []byte(canary)) {
		t.Errorf("the log holds a password:\n%s", log)
	}
}

func TestAnotherRedisNeedsARestart(t *testing.T) {
	t.Parallel()
	server := gatewaytest.NewRedis(t)
	w := redisWorld(t, 1, server.Store(nil))
	w.Start()
	text, err := os.ReadFile(w.Gateway.Config())
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(text, []byte(`"addresses": [`), []byte(`"prefix": "other:", "grace": "1s", "wait_replicas": 1, "liveness": "2s", "db": 1, "addresses": [`), 1)
	write(t, w.Gateway.Config(), string(changed))
	w.Gateway.Reload()
	eventually(t, "the change is refused", func() bool { return w.Gateway.Events("config_refused") > 0 })
	said := fmt.Sprint(w.Gateway.Logged("config_refused")[0]["error"])
	for _, key := range []string{"prefix", "grace", "wait_replicas", "liveness", "db"} {
		if !strings.Contains(said, "session.store.redis."+key+": was changed, which needs a restart") {
			t.Errorf("nothing is said of %s:\n%s", key, said)
		}
	}
}

// A session belongs to its app's client (DESIGN.md, section 4), and what ended stays
// ended, though the store did not hear of it.
func TestAnAppThatWasGoneDuringAnOutageComesBackWithoutItsSessions(t *testing.T) {
	t.Parallel()
	server := gatewaytest.NewRedis(t)
	w := redisWorld(t, 1, server.Store(nil))
	w.Start()
	b := loggedIn(t, w)
	wantCall(t, b, http.StatusOK, "")
	former, err := os.ReadFile(w.Gateway.Config())
	if err != nil {
		t.Fatal(err)
	}
	reload := func(text []byte) {
		t.Helper()
		before := w.Gateway.Events("config_reloaded")
		write(t, w.Gateway.Config(), string(text))
		w.Gateway.Reload()
		eventually(t, "the reload", func() bool { return w.Gateway.Events("config_reloaded") > before })
	}
	server.Kill()
	reload(bytes.Replace(former, []byte(`"client_id": "`), []byte(`"client_id": "other-`), 1))
	eventually(t, "the store is told in vain", func() bool { return w.Gateway.Events("retire_failed") > 0 })
	reload(former)
	server.Start()
	w.Gateway.AwaitReady()
	eventually(t, "the session is over", func() bool {
		answer, err := b.Call()
		if err == nil && answer.Status == http.StatusOK {
			t.Fatal("the session is back")
		}
		return err == nil && answer.Problem.Code == "session_ended" && answer.Problem.Reason == "revoked"
	})
	wantCall(t, loggedIn(t, w), http.StatusOK, "")
}

// authority signs certificates of servers at 127.0.0.1.
type authority struct {
	t           *testing.T
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	a := &authority{t: t, key: key, certificate: &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "a CA of tests"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}}
	der, err := x509.CreateCertificate(rand.Reader, a.certificate, a.certificate, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	if a.certificate, err = x509.ParseCertificate(der); err != nil {
		t.Fatal(err)
	}
	return a
}

// PEM is the CA's certificate.
func (a *authority) PEM() string {
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.certificate.Raw}))
}

// issue writes a server's certificate and key.
func (a *authority) issue(cert, key string) {
	a.t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: "redis"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
	}, a.certificate, &private.PublicKey, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		a.t.Fatal(err)
	}
	write(a.t, cert, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
	write(a.t, key, string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded})))
}

func TestTheCAOfRedisChangesWithItsFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	ca, cert, key := filepath.Join(dir, "ca.pem"), filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	first, second := newAuthority(t), newAuthority(t)
	first.issue(cert, key)
	write(t, ca, first.PEM())
	secure := gatewaytest.FreeAddress(t)
	_, port, _ := net.SplitHostPort(secure)
	server := gatewaytest.NewRedis(t, "--tls-port", port, "--tls-cert-file", cert, "--tls-key-file", key, "--tls-ca-cert-file", ca, "--tls-auth-clients", "no")
	w := redisWorld(t, 1, server.Store(map[string]any{"addresses": []string{secure}, "tls": map[string]any{"ca": ca}}))
	w.Start()
	b := loggedIn(t, w)

	second.issue(cert, key)
	tellRedis(t, server.Address(), "CONFIG SET tls-cert-file "+cert, "CLIENT KILL TYPE normal SKIPME yes")
	eventually(t, "the new certificate is not trusted", func() bool { return !w.Gateway.Ready() })
	awaitCall(t, b, http.StatusServiceUnavailable)
	write(t, ca, second.PEM())
	eventually(t, "the new CA is", w.Gateway.Ready)
	awaitCall(t, b, http.StatusOK)
}

// Presence of tls asks for TLS: a Redis without it is none that is trusted.
func TestTLSWithTheSystemsCAs(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	hello := make(chan byte, 64)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			first := make([]byte, 1)
			if _, err := io.ReadFull(conn, first); err == nil {
				select {
				case hello <- first[0]:
				default:
				}
			}
			conn.Close()
		}
	}()
	w := redisWorld(t, 1, map[string]any{"redis": map[string]any{"addresses": []string{listener.Addr().String()}, "tls": map[string]any{}}})
	w.Gateway.Launch()
	const handshake = 0x16 // RFC 8446, section 5.1
	if first := <-hello; first != handshake {
		t.Errorf("the first byte to the server is %#x, want that of a handshake", first)
	}
}
