package main

import (
	"bufio"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// pemPair makes a self-signed certificate and its key, as PEM.
func pemPair(t *testing.T, serial int64, hosts ...string) (cert, key string) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(serial), DNSNames: hosts,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, // so that a client certificate can be its own CA
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	encoded, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		string(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: encoded}))
}

// certificate writes a pair as name.pem and name.key.
func certificate(t *testing.T, dir, name string, serial int64, hosts ...string) {
	t.Helper()
	cert, key := pemPair(t, serial, hosts...)
	write(t, filepath.Join(dir, name+".pem"), cert)
	write(t, filepath.Join(dir, name+".key"), key)
}

// certifiedApps is a gateway with an app at a.localhost and one at b.localhost, which
// have a certificate each.
func certifiedApps(t *testing.T, more string) (g *gateway, dir, path string) {
	t.Helper()
	dir, path = site(t, settings{})
	certificate(t, dir, "a", 1, "a.localhost", "www.a.localhost")
	certificate(t, dir, "b", 2, "b.localhost", "a.localhost")
	text := settings{}.String()
	text = strings.Replace(text, "origin: http://localhost:8080", "origin: https://a.localhost\n    tls: {cert: a.pem, key: a.key}", 1)
	text += strings.NewReplacer("a.localhost", "b.localhost", "a.pem", "b.pem", "a.key", "b.key").Replace(text[strings.Index(text, "  - origin"):])
	write(t, path, text+more)
	return start(t, path), dir, path
}

// dial opens a TLS connection, which trusts anybody.
func (g *gateway) dial(name string, change ...func(*tls.Config)) (*tls.Conn, error) {
	conf := &tls.Config{ServerName: name, InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}
	for _, f := range change {
		f(conf)
	}
	return tls.DialWithDialer(&net.Dialer{Timeout: 5 * time.Second}, "tcp", g.public, conf)
}

// serial is the number of the certificate that a new handshake shows.
func (g *gateway) serial(name string) int64 {
	g.t.Helper()
	conn, err := g.dial(name)
	if err != nil {
		g.t.Fatal(err)
	}
	defer conn.Close()
	return conn.ConnectionState().PeerCertificates[0].SerialNumber.Int64()
}

func TestOP09TLSTowardsBrowsers(t *testing.T) {
	t.Parallel()
	g, _, _ := certifiedApps(t, "")
	for _, row := range []struct {
		name, host string
		want       int64
	}{
		{"an app's own certificate", "a.localhost", 1},
		{"another app's, whatever the case", "B.localhost", 2},
		{"an unknown name gets the first", "unknown.localhost", 1},
		{"no name gets the first", "", 1},
	} {
		if got := g.serial(row.host); got != row.want {
			t.Errorf("%s: certificate %d, want %d", row.name, got, row.want)
		}
	}
	for _, row := range []struct {
		name     string
		min, max uint16
		offers   []string
		speaks   string
	}{
		{"TLS 1.3 with HTTP/2", tls.VersionTLS13, tls.VersionTLS13, []string{"h2", "http/1.1"}, "h2"},
		{"TLS 1.2 with HTTP/2", tls.VersionTLS12, tls.VersionTLS12, []string{"h2", "http/1.1"}, "h2"},
		{"TLS 1.2 with HTTP/1.1", tls.VersionTLS12, tls.VersionTLS12, []string{"http/1.1"}, "http/1.1"},
		{"TLS 1.2 without ALPN", tls.VersionTLS12, tls.VersionTLS12, nil, ""},
	} {
		conn, err := g.dial("a.localhost", func(c *tls.Config) { c.MinVersion, c.MaxVersion, c.NextProtos = row.min, row.max, row.offers })
		if err != nil {
			t.Errorf("%s: %v", row.name, err)
			continue
		}
		if got := conn.ConnectionState().NegotiatedProtocol; got != row.speaks {
			t.Errorf("%s: it speaks %q", row.name, got)
		}
		conn.Close()
	}
	for _, version := range []uint16{tls.VersionTLS10, tls.VersionTLS11} {
		if conn, err := g.dial("a.localhost", func(c *tls.Config) { c.MinVersion, c.MaxVersion = version, version }); err == nil {
			conn.Close()
			t.Errorf("%s is spoken", tls.VersionName(version))
		}
	}
}

// A certificate is read again when it changes (pain 67): new connections get it
// within five seconds, open ones go on.
func TestAChangedCertificateIsServedAndNoConnectionIsCut(t *testing.T) {
	t.Parallel()
	g, dir, _ := certifiedApps(t, "")
	open, err := g.dial("a.localhost", func(c *tls.Config) { c.NextProtos = nil })
	if err != nil {
		t.Fatal(err)
	}
	defer open.Close()
	answers := bufio.NewReader(open)
	ask := func() {
		t.Helper()
		fmt.Fprint(open, "GET / HTTP/1.1\r\nHost: a.localhost\r\n\r\n")
		res, err := http.ReadResponse(answers, nil)
		if err != nil || res.StatusCode != 200 {
			t.Fatalf("the open connection: %v, %v", res, err)
		}
		_, _ = io.Copy(io.Discard, res.Body)
	}
	ask()
	certificate(t, dir, "a", 3, "a.localhost")
	changed := time.Now()
	eventually(t, "the new certificate", func() bool { return g.serial("a.localhost") == 3 })
	if took := time.Since(changed); took > 5*time.Second {
		t.Errorf("the new certificate is there after %v", took)
	}
	if got := g.serial("b.localhost"); got != 2 {
		t.Errorf("the other app's certificate is %d", got)
	}
	ask()
}

// Renewal writes two files, one after the other, or half of one.
func TestHalfOfANewCertificateChangesNothing(t *testing.T) {
	t.Parallel()
	cert, key := pemPair(t, 3, "a.localhost")
	for _, row := range []struct {
		name, cert, says string
	}{
		{"a certificate without its key", cert, "apps[0].tls.cert: does not work with its key"},
		{"half a certificate", cert[:len(cert)/2], "apps[0].tls.cert: does not work with its key"},
		{"nothing yet", "", "apps[0].tls.cert: does not work with its key"},
	} {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			g, dir, _ := certifiedApps(t, "")
			write(t, filepath.Join(dir, "a.pem"), row.cert)
			refused := g.await("config_refused")
			if !strings.Contains(refused["error"].(string), row.says) {
				t.Errorf("the log says %q", refused["error"])
			}
			if got := g.serial("a.localhost"); got != 1 {
				t.Errorf("meanwhile the certificate is %d", got)
			}
			write(t, filepath.Join(dir, "a.key"), key)
			write(t, filepath.Join(dir, "a.pem"), cert)
			eventually(t, "the new certificate", func() bool { return g.serial("a.localhost") == 3 })
		})
	}
}

// RFC 9110, section 7.4: a request for a host that the connection was not made
// for, by a certificate that is not for it, is answered 421.
func TestARequestOnAConnectionForAnotherHostIsMisdirected(t *testing.T) {
	t.Parallel()
	g, _, _ := certifiedApps(t, "")
	trusting, _, _ := certifiedApps(t, `trusted_proxies: ["127.0.0.1/32"]`)
	for _, row := range []struct {
		name      string
		g         *gateway
		sni, host string
		want      int
	}{
		{"the host that was asked for", g, "a.localhost", "a.localhost", 200},
		{"the same with its port, in another case", g, "A.localhost", "a.LOCALHOST:443", 200},
		{"another app, whose certificate it is not", g, "a.localhost", "b.localhost", 421},
		{"another app that the certificate is for too", g, "b.localhost", "a.localhost", 200},
		{"a longer name that begins alike", g, "www.a.localhost", "a.localhost", 200},
		{"an unknown name, a host of the certificate", g, "unknown.localhost", "a.localhost", 200},
		{"an unknown name, another host", g, "unknown.localhost", "b.localhost", 421},
		{"an unknown host", g, "a.localhost", "unknown.localhost", 421},
		{"no name: the client went on without", g, "", "b.localhost", 200},
		{"a trusted proxy speaks for all", trusting, "a.localhost", "b.localhost", 200},
	} {
		for _, proto := range []string{"h2", "http/1.1"} {
			client := &http.Client{Transport: &http.Transport{
				TLSClientConfig:   &tls.Config{ServerName: row.sni, InsecureSkipVerify: true},
				ForceAttemptHTTP2: proto == "h2",
			}}
			if row.sni == "" {
				client.Transport.(*http.Transport).TLSClientConfig.ServerName = "127.0.0.1" // RFC 6066, section 3: is not sent
			}
			res, err := client.Do(request(t, "https://"+row.g.public+"/", row.host))
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(res.Body)
			if err != nil {
				t.Fatal(err)
			}
			res.Body.Close()
			client.CloseIdleConnections()
			if res.StatusCode != row.want || row.want == 421 && !strings.Contains(string(body), "unknown_host") {
				t.Errorf("%s, %s: %d %s, want %d", row.name, proto, res.StatusCode, body, row.want)
			}
		}
	}
}

// raw sends one request as it stands and returns the answer, after which the
// connection has to be over.
func raw(t *testing.T, address, request string) (res *http.Response, body string) {
	t.Helper()
	conn, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(conn)
	method, _, _ := strings.Cut(request, " ")
	res, err = http.ReadResponse(in, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", request, err)
	}
	text, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.ReadByte(); err != io.EOF {
		t.Errorf("%q: the connection goes on: %v", request, err)
	}
	return res, string(text)
}

// OP-03: what comes without TLS where TLS is spoken is redirected, if a person
// looks at it, else refused, so that a mistake is seen before it is a habit.
func TestOP03PlainHTTPIsNeverServed(t *testing.T) {
	t.Parallel()
	var seen atomic.Int32
	upstream := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { seen.Add(1) }))
	defer upstream.Close()
	dir, path := site(t, settings{})
	certificate(t, dir, "a", 1, "shop.localhost")
	text := settings{
		routes: fmt.Sprintf("- {path: /, upstream: %q, auth: none, kind: page}", upstream.URL),
		more:   `tls: {cert: a.pem, key: a.key, redirect: "127.0.0.1:0"}`,
	}.String()
	write(t, path, strings.Replace(text, "http://localhost:8080", "https://shop.localhost:8443", 1))
	g := start(t, path)
	redirect := g.await("ready")["redirect"].(string)

	const page = "\r\nAccept: text/html,*/*;q=0.8\r\n\r\n"
	const host = " HTTP/1.1\r\nHost: shop.localhost:8443"
	const origin = "https://shop.localhost:8443"
	for _, row := range []struct {
		name, request string
		status        int
		want          string // Location, or code
	}{
		{"a navigation", "GET /orders" + host + page, 308, origin + "/orders"},
		{"its query stays", "GET /a%20b?x=%2F&y=//evil.example" + host + page, 308, origin + "/a%20b?x=%2F&y=//evil.example"},
		{"an empty query too", "GET /a?" + host + page, 308, origin + "/a?"},
		{"HEAD", "HEAD /" + host + page, 308, origin + "/"},
		{"a navigation by Fetch Metadata", "GET /" + host + "\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: document\r\n\r\n", 308, origin + "/"},
		{"without the port, as on port 80", "GET /x HTTP/1.1\r\nHost: SHOP.localhost" + page, 308, origin + "/x"},
		{"our own endpoints too", "GET /bff/login?returnUrl=/x" + host + page, 308, origin + "/bff/login?returnUrl=/x"},
		{"a forwarded host changes nothing", "GET /" + host + "\r\nX-Forwarded-Host: evil.example\r\nX-Forwarded-Proto: https" + page, 308, origin + "/"},
		{"a call of an API", "GET /api/x" + host + "\r\nX-CSRF: 1\r\nAccept: */*\r\n\r\n", 403, "forbidden"},
		{"a call with a cookie", "GET /api/x" + host + "\r\nCookie: __Host-Http-session=x\r\n\r\n", 403, "forbidden"},
		{"a form", "POST /x" + host + "\r\nContent-Length: 3" + page + "a=b", 403, "forbidden"},
		{"a long upload is not read", "POST /x" + host + "\r\nContent-Length: 30000000" + page, 403, "forbidden"},
		{"a frame", "GET /" + host + "\r\nSec-Fetch-Mode: navigate\r\nSec-Fetch-Dest: iframe" + page, 403, "forbidden"},
		{"a WebSocket", "GET /" + host + "\r\nConnection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==" + page, 403, "forbidden"},
		{"a logout token", "POST /bff/backchannel" + host + "\r\nContent-Length: 0\r\n\r\n", 403, "forbidden"},
		{"an unknown host", "GET / HTTP/1.1\r\nHost: evil.example" + page, 421, "unknown_host"},
		{"no host", "GET / HTTP/1.0" + page, 421, "unknown_host"},
		{"an absolute target for another host", "GET http://evil.example/" + host + page, 421, "unknown_host"},
		{"two slashes", "GET //evil.example/" + host + page, 400, "bad_path"},
		{"a backslash", `GET /\evil.example` + host + page, 400, "bad_path"},
		{"dots", "GET /../x" + host + page, 400, "bad_path"},
		{"an asterisk", "OPTIONS *" + host + "\r\n\r\n", 400, "bad_path"},
		{"TRACE", "TRACE /" + host + "\r\n\r\n", 405, "method_not_allowed"},
		{"CONNECT", "CONNECT shop.localhost:8443" + host + "\r\n\r\n", 405, "method_not_allowed"},
	} {
		for name, address := range map[string]string{"the TLS listener": g.public, "tls.redirect": redirect} {
			res, body := raw(t, address, row.request)
			what := row.name + " at " + name
			var problem struct{ Code, Detail string }
			_ = json.Unmarshal([]byte(body), &problem)
			switch got := res.Header.Get("Location"); {
			case res.StatusCode != row.status:
				t.Errorf("%s: %d %s", what, res.StatusCode, body)
			case row.status == 308 && got != row.want || row.status != 308 && got != "":
				t.Errorf("%s: it leads to %q", what, got)
			case row.status != 308 && (problem.Code != row.want || res.Header.Get("X-Sessiongate") != "1"):
				t.Errorf("%s: %s %v", what, body, res.Header)
			case row.want == "forbidden" && !strings.Contains(problem.Detail, "https"):
				t.Errorf("%s: the detail is %q", what, problem.Detail)
			}
			if len(res.Header["Set-Cookie"]) > 0 || len(res.Header["Strict-Transport-Security"]) > 0 || res.Header.Get("Cache-Control") != "no-store" || !res.Close {
				t.Errorf("%s: %v", what, res.Header)
			}
		}
	}
	// HTTP/2 without TLS is no way around it.
	for _, address := range []string{g.public, redirect} {
		if res, _ := raw(t, address, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); res.StatusCode < 400 {
			t.Errorf("HTTP/2 without TLS: %d", res.StatusCode)
		}
	}
	if n := seen.Load(); n != 0 {
		t.Errorf("the upstream saw %d requests", n)
	}
	if code := g.stop(); code != 0 {
		t.Errorf("exit code %d\n%s", code, g.output())
	}
}

// Whoever says nothing keeps nobody waiting, and no shutdown either.
func TestASilentConnectionToTheTLSListenerHoldsUpNobody(t *testing.T) {
	t.Parallel()
	g, _, _ := certifiedApps(t, "")
	for range 20 {
		silent, err := net.Dial("tcp", g.public)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
	}
	if got := g.serial("a.localhost"); got != 1 {
		t.Errorf("certificate %d", got)
	}
	began := time.Now()
	if code := g.stop(); code != 0 || time.Since(began) > 3*time.Second {
		t.Errorf("exit code %d after %v\n%s", code, time.Since(began), g.output())
	}
}

// A connection can be broken off behind TLS too: who is sent a part only must not
// take it for the end.
func TestConnectionsWithTLSCanBeReset(t *testing.T) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var timeout atomic.Int64
	f := newFront(newPatientListener(socket, 0, &timeout))
	go f.run()
	t.Cleanup(func() { _ = f.close() })
	client, err := net.Dial("tcp", socket.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	_, _ = client.Write([]byte{recordHandshake})
	conn, err := f.secure.Accept()
	if err != nil {
		t.Fatal(err)
	}
	under := tls.Server(conn, &tls.Config{}).NetConn()
	l, ok := under.(interface{ SetLinger(int) error })
	if !ok {
		t.Fatalf("a %T cannot be reset", under)
	}
	if err := errors.Join(l.SetLinger(0), under.Close()); err != nil {
		t.Fatal(err)
	}
	_ = client.SetReadDeadline(time.Now().Add(10 * time.Second))
	if _, err := client.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the client sees %v, want a reset", err)
	}
}
