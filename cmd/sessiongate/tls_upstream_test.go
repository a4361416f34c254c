package main

import (
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// secureUpstream is an upstream that wants a client certificate, and notes those
// that it is shown.
func secureUpstream(t *testing.T, change func(*tls.Config)) (u *httptest.Server, shown func() []int64) {
	t.Helper()
	cert, key := pemPair(t, 10, "localhost")
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	serials := make(chan int64, 100)
	u = httptest.NewUnstartedServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		for _, c := range r.TLS.PeerCertificates {
			serials <- c.SerialNumber.Int64()
		}
	}))
	u.TLS = &tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequestClientCert}
	change(u.TLS)
	u.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	u.StartTLS()
	t.Cleanup(u.Close)
	return u, func() []int64 {
		var all []int64
		for len(serials) > 0 {
			all = append(all, <-serials)
		}
		return all
	}
}

// PX-18: our client certificate for an upstream is read again when it changes, and
// so is the upstream's CA.
func TestPX18ClientCertificateAndCAOfAnUpstreamAreReadAgain(t *testing.T) {
	t.Parallel()
	upstream, shown := secureUpstream(t, func(*tls.Config) {})
	ca := string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: upstream.TLS.Certificates[0].Certificate[0]}))
	to := strings.Replace(upstream.URL, "127.0.0.1", "localhost", 1)
	dir, path := site(t, settings{routes: fmt.Sprintf("- {path: /, upstream: %q, auth: none, tls: {ca: ca.pem, cert: us.pem, key: us.key}}", to)})
	write(t, filepath.Join(dir, "ca.pem"), ca)
	certificate(t, dir, "us", 1)
	g := start(t, path)
	if status, body := g.get("/"); status != 200 {
		t.Fatalf("%d %s", status, body)
	}
	certificate(t, dir, "us", 2)
	eventually(t, "the new client certificate", func() bool {
		status, _ := g.get("/")
		serials := shown()
		return status == 200 && serials[len(serials)-1] == 2
	})
	other, _ := pemPair(t, 11, "localhost")
	write(t, filepath.Join(dir, "ca.pem"), other)
	eventually(t, "the upstream is not trusted any more", func() bool {
		status, body := g.get("/")
		return status == 502 && strings.Contains(body, "upstream_unreachable")
	})
	shown()
	if status, _ := g.get("/"); status != 502 || len(shown()) != 0 {
		t.Errorf("with another CA: %d", status)
	}
}

// CVE-2025-41243 and its like: a CA that is configured is used, or nothing is
// served at all.
func TestCVE202541243ACAThatCannotBeUsedIsNotIgnored(t *testing.T) {
	t.Parallel()
	whole, _ := pemPair(t, 1, "localhost")
	for _, row := range []struct{ name, ca, want string }{
		{"no file", "", "does not exist"},
		{"no certificate", "-", "holds no certificate"},
		{"a key", "-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds something that is no certificate"},
		{"one of two is cut off", whole + whole[:len(whole)/2], "holds a certificate that cannot be read"},
		{"one of two is broken", whole + "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "holds something that is no certificate"},
	} {
		dir, path := site(t, settings{routes: `- {path: /, upstream: "https://api.example.com", tls: {ca: ca.pem}}`})
		if row.ca != "" {
			write(t, filepath.Join(dir, "ca.pem"), row.ca)
		}
		for _, command := range []string{"check", "serve"} {
			if code, _, stderr := sessiongate(t, command, "-config", path); code != 2 || !containsAll(stderr, "routes[0].tls.ca", row.want) {
				t.Errorf("%s, %s: %d %s", row.name, command, code, stderr)
			}
		}
	}
}

// What switches protection off says so wherever somebody may look.
func TestPX18InsecureSkipVerifyIsNeverSilent(t *testing.T) {
	t.Parallel()
	upstream, _ := secureUpstream(t, func(*tls.Config) {})
	_, path := site(t, settings{routes: fmt.Sprintf("- {path: /, upstream: %q, auth: none, tls: {insecure_skip_verify: true}}", upstream.URL)})
	const key = "apps[0].routes[0].tls.insecure_skip_verify"
	if code, stdout, _ := sessiongate(t, "check", "-config", path); code != 0 || !containsAll(stdout, "warning: ", key) {
		t.Errorf("check: %d %s", code, stdout)
	}
	g := start(t, path)
	if status, body := g.get("/"); status != 200 {
		t.Errorf("%d %s", status, body)
	}
	warnings := func() (n int) {
		for line := range strings.Lines(g.output()) {
			var entry struct{ Event, Level, Warning string }
			if json.Unmarshal([]byte(line), &entry) == nil && entry.Event == "insecure" && entry.Level == "WARN" && strings.Contains(entry.Warning, key) {
				n++
			}
		}
		return n
	}
	eventually(t, "the warning of the start", func() bool { return warnings() == 1 })
	g.signal(syscall.SIGHUP)
	eventually(t, "the warning of the reload", func() bool { return warnings() == 2 })
}
