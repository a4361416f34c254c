// Package grpc drives the real gateway with the client and the server of google.golang.org/grpc. It is a module of its
// own, so that the gateway's go.mod stays free of it.
package grpc

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// binaries is where the gateway is built.
var binaries string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "sessiongate-grpc-")
		if err != nil {
			panic(err)
		}
		defer os.RemoveAll(dir)
		binaries = dir
		return m.Run()
	}())
}

// world is the gateway between a gRPC client and gRPC servers, with and without TLS at each side.
type world struct {
	t       *testing.T
	origin  *url.URL
	orders  *orders
	browser *http.Client
	conn    *grpc.ClientConn
}

// certificate is for localhost, by itself.
func certificate(t *testing.T) (cert, key string, pair tls.Certificate, pool *x509.CertPool) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "localhost"}, DNSNames: []string{"localhost"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), IsCA: true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	cert, key = filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	certPEM := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
	keyPEM := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
	if err := errors.Join(os.WriteFile(cert, certPEM, 0o600), os.WriteFile(key, keyPEM, 0o600)); err != nil {
		t.Fatal(err)
	}
	if pair, err = tls.X509KeyPair(certPEM, keyPEM); err != nil {
		t.Fatal(err)
	}
	pool = x509.NewCertPool()
	pool.AppendCertsFromPEM(certPEM)
	return cert, key, pair, pool
}

// newWorld starts everything. With secure the gateway speaks TLS, else HTTP/2 without, to a peer whom it trusts.
func newWorld(t *testing.T, secure bool) *world {
	t.Helper()
	listen := freeAddress(t)
	_, port, _ := net.SplitHostPort(listen)
	cert, key, pair, pool := certificate(t)
	w := &world{t: t, orders: &orders{began: make(chan string, 10), done: make(chan error, 10)}, origin: &url.URL{Scheme: "http", Host: "localhost:" + port}}

	serve := func(name string, options ...grpc.ServerOption) (port string) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := grpc.NewServer(options...)
		s.RegisterService(service(name), w.orders)
		go s.Serve(l)
		t.Cleanup(s.Stop)
		_, port, _ = net.SplitHostPort(l.Addr().String())
		return port
	}
	plain := "h2c://127.0.0.1:" + serve("shop.Orders")
	encrypted := "https://localhost:" + serve("secure.Orders", grpc.Creds(credentials.NewServerTLSFromCert(&pair)))
	more := map[string]any{"limits": map[string]any{"body_timeout": "300ms", "streams_per_session": 3}}
	dial := insecure.NewCredentials()
	transport := &http.Transport{}
	if secure {
		w.origin.Scheme = "https"
		more["tls"] = map[string]any{"cert": cert, "key": key}
		dial = credentials.NewTLS(&tls.Config{RootCAs: pool})
		transport.TLSClientConfig = &tls.Config{RootCAs: pool}
	} else {
		more["trusted_proxies"] = []string{"127.0.0.0/8"}
	}
	startGateway(t, listen, map[string]any{
		"origin": w.origin.String(),
		"oidc":   map[string]any{"issuer": newProvider(t).URL, "client_id": "shop", "client_secret": "a client secret, of a test"},
		"routes": []any{
			map[string]any{"path": "/shop.Orders/", "upstream": plain},
			map[string]any{"path": "/secure.Orders/", "upstream": encrypted, "tls": map[string]any{"ca": cert}},
			map[string]any{"path": "/shop.Orders/Get", "upstream": plain, "timeout": "1s", "max_body": 1000},
			map[string]any{"path": "/gone.Orders/", "upstream": "h2c://" + freeAddress(t)},
			map[string]any{"path": "/reading.Orders/", "upstream": plain, "methods": []string{"GET"}},
		},
	}, more)

	jar, _ := cookiejar.New(nil)
	w.browser = &http.Client{Transport: transport, Jar: jar}
	t.Cleanup(transport.CloseIdleConnections)
	conn, err := grpc.NewClient("passthrough:///"+listen, grpc.WithTransportCredentials(dial), grpc.WithAuthority(w.origin.Host))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	w.conn = conn
	w.login()
	return w
}

func (w *world) login() {
	w.t.Helper()
	res, err := w.browser.Get(w.origin.String() + "/bff/login")
	if err != nil {
		w.t.Fatal(err)
	}
	res.Body.Close()
	if w.cookie() == "" {
		w.t.Fatalf("no session after the login: %s at %s", res.Status, res.Request.URL)
	}
}

// cookie is the session cookie, as a request carries it.
func (w *world) cookie() string {
	for _, c := range w.browser.Jar.Cookies(w.origin) {
		if strings.HasSuffix(c.Name, "session") || c.Name == "sessiongate" {
			return c.Name + "=" + c.Value
		}
	}
	return ""
}

// logout ends the session, as a script of the app does.
func (w *world) logout() {
	w.t.Helper()
	r, _ := http.NewRequest("POST", w.origin.String()+"/bff/logout", nil)
	r.Header.Set("X-CSRF", "1")
	res, err := w.browser.Do(r)
	if err != nil || res.StatusCode != 200 {
		w.t.Fatalf("logout: %v, %v", res, err)
	}
	res.Body.Close()
}

// ctx is for a call with the session.
func (w *world) ctx(more ...string) context.Context {
	ctx, cancel := context.WithTimeout(w.t.Context(), 20*time.Second)
	w.t.Cleanup(cancel)
	return metadata.AppendToOutgoingContext(ctx, append([]string{"cookie", w.cookie(), "x-csrf", "1"}, more...)...)
}

func (w *world) stream(ctx context.Context, method string) grpc.ClientStream {
	w.t.Helper()
	s, err := w.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, method)
	if err != nil {
		w.t.Fatal(err)
	}
	return s
}

// say sends a message, and hear receives one. What a broken stream is, hear tells.
func say(s grpc.ClientStream, what string) { _ = s.SendMsg(wrapperspb.String(what)) }

func hear(s grpc.ClientStream) (string, error) {
	var out text
	err := s.RecvMsg(&out)
	return out.Value, err
}

var inbound = []struct {
	name   string
	secure bool
}{{"over TLS", true}, {"from a trusted balancer without TLS", false}}

func TestAllFourKindsOfCalls(t *testing.T) {
	for _, in := range inbound {
		t.Run(in.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, in.secure)
			for _, name := range []string{"shop.Orders", "secure.Orders"} {
				w.testKinds("/" + name)
			}
		})
	}
}

func (w *world) testKinds(service string) {
	t := w.t
	// One message each way, with metadata both ways.
	var header, trailer metadata.MD
	var out text
	ctx := w.ctx("x-note", "n 1", "x-note", "n 2", "x-note-bin", "\x00\x01\xfe\xff", "authorization", "Bearer evil", "cookie", "own=1")
	if err := w.conn.Invoke(ctx, service+"/Get", wrapperspb.String("one"), &out, grpc.Header(&header), grpc.Trailer(&trailer)); err != nil {
		t.Fatalf("%s: %v", service, err)
	}
	for _, want := range []string{"one ", `authorization=["Bearer the-access-token"]`, `cookie=["own=1"]`, `x-csrf=[]`, `x-note=["n 1" "n 2"]`, `x-note-bin=["\x00\x01\xfe\xff"]`, `x-forwarded-host=["` + w.origin.Host + `"]`} {
		if !strings.Contains(out.Value, want) {
			t.Errorf("%s: the server saw %s, want %s in it", service, out.Value, want)
		}
	}
	if !slices.Equal(header.Get("x-header"), []string{"h"}) || !slices.Equal(header.Get("x-header-bin"), []string{"\x00\xff"}) {
		t.Errorf("%s: header %q", service, header)
	}
	if !slices.Equal(trailer.Get("x-trailer"), []string{"t"}) || !slices.Equal(trailer.Get("x-trailer-bin"), []string{"\xff\x00"}) || trailer.Get("x-sessiongate") != nil {
		t.Errorf("%s: trailer %q", service, trailer)
	}
	// The server's errors are its own, with what they say.
	err := w.conn.Invoke(w.ctx(), service+"/Get", wrapperspb.String("missing"), &out, grpc.Header(&header))
	if s := status.Convert(err); s.Code() != codes.NotFound || s.Message() != "no order: 100 % gone, müde" || header.Get("x-sessiongate") != nil {
		t.Errorf("%s: %v, %q", service, err, header)
	}

	list := w.stream(w.ctx(), service+"/List")
	say(list, "n")
	list.CloseSend()
	var all []string
	for {
		v, err := hear(list)
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("%s: list: %v", service, err)
		}
		all = append(all, v)
	}
	if got := strings.Join(all, " "); got != "n0 n1 n2" {
		t.Errorf("%s: list: %s", service, got)
	}

	collect := w.stream(w.ctx(), service+"/Collect")
	big := strings.Repeat("x", 1<<20)
	say(collect, "a")
	say(collect, big)
	collect.CloseSend()
	if v, err := hear(collect); err != nil || v != "a+"+big {
		t.Errorf("%s: collect: %d bytes, %v", service, len(v), err)
	}

	// Nothing waits for more to come, in either direction.
	chat := w.stream(w.ctx(), service+"/Chat")
	for i := range 100 {
		say(chat, fmt.Sprint(i))
		if v, err := hear(chat); err != nil || v != fmt.Sprint("re: ", i) {
			t.Fatalf("%s: chat: %q, %v", service, v, err)
		}
	}
	chat.CloseSend()
	if _, err := hear(chat); err != io.EOF {
		t.Errorf("%s: the end of a chat: %v", service, err)
	}
}

// Who is refused hears why as gRPC says it (pain 53: unauthenticated is UNAUTHENTICATED).
func TestRefusals(t *testing.T) {
	for _, in := range inbound {
		t.Run(in.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, in.secure)
			anonymous := metadata.AppendToOutgoingContext(t.Context(), "x-csrf", "1")
			bare := metadata.AppendToOutgoingContext(t.Context(), "cookie", w.cookie())
			foreign := w.ctx("origin", "https://evil.example")
			ended := w.ctx()
			w.logout()
			w.login()
			for _, test := range []struct {
				name   string
				ctx    context.Context
				method string
				in     string
				code   codes.Code
				says   string
			}{
				{"no session", anonymous, "/shop.Orders/Get", "one", codes.Unauthenticated, "session_required: "},
				{"a session that ended", ended, "/shop.Orders/Get", "one", codes.Unauthenticated, "session_ended: "},
				{"no X-CSRF", bare, "/shop.Orders/Get", "one", codes.PermissionDenied, "csrf_header_missing: "},
				{"another site", foreign, "/shop.Orders/Get", "one", codes.PermissionDenied, "origin_denied: "},
				{"no route", w.ctx(), "/other.Orders/Get", "one", codes.Unimplemented, "no_route: "},
				{"a method that the route does not allow", w.ctx(), "/reading.Orders/Get", "one", codes.Unimplemented, "method_not_allowed: "},
				{"an endpoint of ours", w.ctx(), "/bff/session", "one", codes.Unimplemented, "method_not_allowed: "},
				{"a path that is none", w.ctx(), "/shop.Orders/../Get", "one", codes.Internal, "bad_path: "},
				{"more than max_body", w.ctx(), "/shop.Orders/Get", strings.Repeat("x", 2000), codes.ResourceExhausted, "body_too_large: "},
				{"no upstream", w.ctx(), "/gone.Orders/Get", "one", codes.Unavailable, "upstream_unreachable: "},
				{"an upstream that takes longer than its route allows", w.ctx(), "/shop.Orders/Get", "slow", codes.DeadlineExceeded, "upstream_timeout: "},
			} {
				var header, trailer metadata.MD
				err := w.conn.Invoke(test.ctx, test.method, wrapperspb.String(test.in), new(text), grpc.Header(&header), grpc.Trailer(&trailer))
				if s := status.Convert(err); s.Code() != test.code || !strings.HasPrefix(s.Message(), test.says) {
					t.Errorf("%s: %v, want %v %s…", test.name, err, test.code, test.says)
				}
				for _, name := range []string{"x-sessiongate", "x-request-id", "cache-control"} {
					if len(header.Get(name))+len(trailer.Get(name)) != 1 {
						t.Errorf("%s: no %s: %q %q", test.name, name, header, trailer)
					}
				}
			}
		})
	}
}

// heard is the next thing that the server tells.
func heard[T any](t *testing.T, from <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-from:
	case <-time.After(20 * time.Second):
		t.Fatal("the server heard nothing")
	}
	return v
}

// Deadlines and cancellations of the client are the server's too.
func TestTheServerHearsOfDeadlinesAndCancellations(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	ctx, cancel := context.WithTimeout(w.ctx(), 2*time.Second)
	defer cancel()
	late := w.stream(ctx, "/shop.Orders/Wait")
	say(late, "deadline")
	if _, err := hear(late); status.Code(err) != codes.DeadlineExceeded {
		t.Errorf("past its deadline: %v", err)
	}
	if err := heard(t, w.orders.done); !errors.Is(err, context.DeadlineExceeded) && !errors.Is(err, context.Canceled) {
		t.Errorf("the server heard %v", err)
	}

	ctx, cancel = context.WithCancel(w.ctx())
	stream := w.stream(ctx, "/shop.Orders/Wait")
	say(stream, "hello")
	if v, err := hear(stream); v != "hello" {
		t.Fatalf("%q, %v", v, err)
	}
	cancel()
	if err := heard(t, w.orders.done); !errors.Is(err, context.Canceled) {
		t.Errorf("the server heard %v", err)
	}
}

// Calls belong to their session, also before the server has said a word: when it ends they end, within a second, and
// both sides hear of it (PX-21).
func TestCallsEndWithTheirSession(t *testing.T) {
	for _, in := range inbound {
		t.Run(in.name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, in.secure)
			answered, silent := w.stream(w.ctx(), "/shop.Orders/Wait"), w.stream(w.ctx(), "/secure.Orders/Wait")
			say(answered, "hello")
			say(silent, "silence")
			if v, err := hear(answered); v != "hello" {
				t.Fatalf("%q, %v", v, err)
			}
			for range 2 {
				heard(t, w.orders.began) // a call that the server has not heard of ends without it
			}
			w.logout()
			began := time.Now()
			for name, s := range map[string]grpc.ClientStream{"answered": answered, "silent": silent} {
				if _, err := hear(s); status.Code(err) != codes.Unauthenticated || !strings.HasPrefix(status.Convert(err).Message(), "session_ended: ") {
					t.Errorf("%s: %v, want Unauthenticated", name, err)
				}
				if err := heard(t, w.orders.done); !errors.Is(err, context.Canceled) {
					t.Errorf("the server heard %v", err)
				}
			}
			if took := time.Since(began); took > time.Second {
				t.Errorf("the streams ended after %v", took)
			}
		})
	}
}

// Silence is no fault of a call: body_timeout is for uploads.
func TestASilentCallGoesOn(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	collect, chat := w.stream(w.ctx(), "/shop.Orders/Collect"), w.stream(w.ctx(), "/shop.Orders/Chat")
	say(collect, "a")
	say(chat, "a")
	if v, err := hear(chat); v != "re: a" {
		t.Fatalf("%q, %v", v, err)
	}
	time.Sleep(time.Second) // more than three times limits.body_timeout
	say(collect, "b")
	collect.CloseSend()
	if v, err := hear(collect); err != nil || v != "a+b" {
		t.Errorf("collect after a silence: %q, %v", v, err)
	}
	say(chat, "b")
	if v, err := hear(chat); err != nil || v != "re: b" {
		t.Errorf("chat after a silence: %q, %v", v, err)
	}
}

// A session has so many calls at once, and no more (limits.streams_per_session).
func TestCallsOfASessionAreLimited(t *testing.T) {
	t.Parallel()
	w := newWorld(t, true)
	var open []grpc.ClientStream
	for range 3 {
		s := w.stream(w.ctx(), "/shop.Orders/Chat")
		say(s, "a")
		if v, err := hear(s); v != "re: a" {
			t.Fatalf("%q, %v", v, err)
		}
		open = append(open, s)
	}
	if err := w.conn.Invoke(w.ctx(), "/shop.Orders/Get", wrapperspb.String("one"), new(text)); status.Code(err) != codes.ResourceExhausted {
		t.Errorf("the fourth: %v, want ResourceExhausted", err)
	}
	open[0].CloseSend()
	if _, err := hear(open[0]); err != io.EOF {
		t.Fatal(err)
	}
	for end := time.Now().Add(5 * time.Second); ; time.Sleep(5 * time.Millisecond) {
		err := w.conn.Invoke(w.ctx(), "/shop.Orders/Get", wrapperspb.String("one"), new(text))
		if err == nil {
			break
		}
		if time.Now().After(end) {
			t.Fatalf("after one has ended: %v", err)
		}
	}
}
