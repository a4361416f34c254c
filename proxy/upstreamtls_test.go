package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"
)

// authority signs certificates for upstreams.
type authority struct {
	key  *ecdsa.PrivateKey
	cert *x509.Certificate
}

func newAuthority(t *testing.T) *authority {
	t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(48 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der := must(x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key))
	return &authority{key: key, cert: must(x509.ParseCertificate(der))}
}

func (a *authority) pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.cert)
	return pool
}

// sign makes a certificate that is good for localhost, but for the change.
func (a *authority) sign(change func(*x509.Certificate)) tls.Certificate {
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	change(template)
	der := must(x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key))
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestPX18UpstreamIsVerifiedBeforeItSeesAToken, and OP-09: TLS 1.2 or later.
func TestPX18UpstreamIsVerifiedBeforeItSeesAToken(t *testing.T) {
	ours, others := newAuthority(t), newAuthority(t)
	good := func(*x509.Certificate) {}
	self := newAuthority(t)
	for _, row := range []struct {
		name    string
		shows   tls.Certificate
		maximum uint16
		trust   UpstreamTLS
		want    int
	}{
		{"a certificate of the route's CA", ours.sign(good), 0, UpstreamTLS{CA: ours.pool()}, 200},
		{"TLS 1.2", ours.sign(good), tls.VersionTLS12, UpstreamTLS{CA: ours.pool()}, 200},
		{"verification switched off", others.sign(good), 0, UpstreamTLS{InsecureSkipVerify: true}, 200},
		{"OP-09 TLS 1.1", ours.sign(good), tls.VersionTLS11, UpstreamTLS{CA: ours.pool()}, 502},
		{"OP-09 TLS 1.1, though verification is off", ours.sign(good), tls.VersionTLS11, UpstreamTLS{InsecureSkipVerify: true}, 502},
		{"CVE-2025-41243 a certificate of another CA", others.sign(good), 0, UpstreamTLS{CA: ours.pool()}, 502},
		{"a private CA that nobody named", ours.sign(good), 0, UpstreamTLS{}, 502},
		{"self-signed", tls.Certificate{Certificate: [][]byte{self.cert.Raw}, PrivateKey: self.key}, 0, UpstreamTLS{CA: ours.pool()}, 502},
		{"expired", ours.sign(func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Minute) }), 0, UpstreamTLS{CA: ours.pool()}, 502},
		{"not valid yet", ours.sign(func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }), 0, UpstreamTLS{CA: ours.pool()}, 502},
		{"for another name", ours.sign(func(c *x509.Certificate) { c.DNSNames = []string{"evil.localhost"} }), 0, UpstreamTLS{CA: ours.pool()}, 502},
		{"for a name in the subject only", ours.sign(func(c *x509.Certificate) { c.DNSNames, c.Subject.CommonName = nil, "localhost" }), 0, UpstreamTLS{CA: ours.pool()}, 502},
		{"for clients", ours.sign(func(c *x509.Certificate) { c.ExtKeyUsage = c.ExtKeyUsage[1:] }), 0, UpstreamTLS{CA: ours.pool()}, 502},
	} {
		t.Run(row.name, func(t *testing.T) {
			up := &upstream{}
			up.Server = httptest.NewUnstartedServer(up)
			up.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
			up.TLS = &tls.Config{Certificates: []tls.Certificate{row.shows}, MinVersion: tls.VersionTLS10, MaxVersion: row.maximum}
			up.StartTLS()
			t.Cleanup(up.Close)
			to := must(url.Parse(strings.Replace(up.URL, "127.0.0.1", "localhost", 1)))
			w := newWorld(t, func(_ *world, a *App, _ *Config) {
				a.Routes = []Route{{Path: "/api/", Upstream: to, TLS: row.trust}}
			})
			got := w.send("GET /api/x", w.withSession()...)
			if got.StatusCode != row.want || row.want == 502 && !strings.Contains(got.body, `"upstream_unreachable"`) {
				t.Errorf("status %d %s, want %d", got.StatusCode, got.body, row.want)
			}
			if row.want == 200 {
				if saw := up.last(t); saw.Header.Get("Authorization") != "Bearer "+w.token {
					t.Errorf("the upstream was sent %q", saw.Header)
				}
				return
			}
			handshake := append(w.withSession(), "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", "Origin: "+testOrigin)
			if got := w.send("GET /api/socket", handshake...); got.StatusCode != 502 {
				t.Errorf("a WebSocket: status %d", got.StatusCode)
			}
			if n := len(up.requests()); n != 0 {
				t.Errorf("the upstream saw %d requests", n)
			}
		})
	}
}

// TestUpstreamSeesOurCertificate, and speaks HTTP/2 if it can.
func TestUpstreamSeesOurCertificate(t *testing.T) {
	ca := newAuthority(t)
	us := ca.sign(func(*x509.Certificate) {})
	up := &upstream{}
	up.Server = httptest.NewUnstartedServer(up)
	up.EnableHTTP2 = true
	up.TLS = &tls.Config{Certificates: []tls.Certificate{us}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool()}
	up.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug)
	up.StartTLS()
	t.Cleanup(up.Close)
	to := must(url.Parse(strings.Replace(up.URL, "127.0.0.1", "localhost", 1)))
	w := newWorld(t, func(_ *world, a *App, _ *Config) {
		a.Routes = []Route{
			{Path: "/with/", Upstream: to, TLS: UpstreamTLS{CA: ca.pool(), Certificate: &us}},
			{Path: "/without/", Upstream: to, TLS: UpstreamTLS{CA: ca.pool()}},
		}
	})
	proto, shown := "", 0
	up.answer(func(_ http.ResponseWriter, r *http.Request) { proto, shown = r.Proto, len(r.TLS.PeerCertificates) })
	if got := w.send("GET /without/x", w.withSession()...); got.StatusCode != 502 || proto != "" {
		t.Errorf("without a certificate: status %d", got.StatusCode)
	}
	if got := w.send("GET /with/x", w.withSession()...); got.StatusCode != 200 || proto != "HTTP/2.0" || shown != 1 {
		t.Errorf("with one: status %d, %s, %d certificates", got.StatusCode, proto, shown)
	}
}
