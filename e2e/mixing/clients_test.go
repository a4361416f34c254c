package mixing

import (
	"bufio"
	"bytes"
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
	mathrand "math/rand/v2"
	"net"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"sessiongate/internal/devprovider"
)

// certificate is of the gateway and of an upstream.
type certificate struct {
	tls.Certificate
	pool          *x509.CertPool
	file, keyFile string
}

func newCertificate(t *testing.T, names ...string) *certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: names[0]}, DNSNames: names,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	private, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	c := &certificate{pool: x509.NewCertPool(), file: filepath.Join(t.TempDir(), "cert.pem"), keyFile: filepath.Join(t.TempDir(), "key.pem")}
	for file, block := range map[string]*pem.Block{c.file: {Type: "CERTIFICATE", Bytes: der}, c.keyFile: {Type: "PRIVATE KEY", Bytes: private}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c.Certificate, err = tls.LoadX509KeyPair(c.file, c.keyFile); err != nil {
		t.Fatal(err)
	}
	c.pool.AddCert(c.Leaf)
	return c
}

// clients are the ways to the gateway, which all users share.
type clients struct {
	address string
	tls     *tls.Config
	one     *http.Transport // HTTP/1.1, connection by connection
	two     *http.Transport // HTTP/2, many users on a connection
}

func newClients(address string, c *certificate) clients {
	// Handshakes are most of the work as it is.
	quick := &tls.Config{RootCAs: c.pool, CurvePreferences: []tls.CurveID{tls.X25519}, ClientSessionCache: tls.NewLRUClientSessionCache(0)}
	way := clients{address: address, tls: quick}
	dial := func(ctx context.Context, network, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	way.one = &http.Transport{DialContext: dial, TLSClientConfig: way.tls.Clone(), MaxConnsPerHost: 64, MaxIdleConnsPerHost: 64, ExpectContinueTimeout: time.Second, TLSNextProto: map[string]func(string, *tls.Conn) http.RoundTripper{}}
	way.two = &http.Transport{DialContext: dial, TLSClientConfig: way.tls.Clone(), ForceAttemptHTTP2: true}
	return way
}

// close closes what is not in use: the gateway waits five seconds for the first
// request of a connection before it stops.
func (c *clients) close() {
	c.one.CloseIdleConnections()
	c.two.CloseIdleConnections()
}

// dial opens a connection of one's own, for HTTP/1.1.
func (c *clients) dial(host string) (net.Conn, error) {
	config := c.tls.Clone()
	config.ServerName, _, _ = strings.Cut(host, ":")
	conn, err := tls.Dial("tcp", c.address, config)
	if err != nil {
		return nil, err
	}
	conn.SetDeadline(time.Now().Add(patience))
	return conn, nil
}

// patience is how long anything may take on a busy machine.
const patience = 2 * time.Minute

// logIn logs everybody in, some at once.
func (w *world) logIn() {
	w.t.Helper()
	var wg sync.WaitGroup
	waiting := make(chan *user)
	for range 32 {
		wg.Go(func() {
			for u := range waiting {
				if err := w.login(u); err != nil {
					w.report("failure", "login of %s at %s: %v", u.sub, u.id, err)
				}
			}
		})
	}
	for _, u := range w.users {
		waiting <- u
	}
	close(waiting)
	wg.Wait()
	if len(w.wrong) > 0 {
		w.none(w.t, "failure")
		w.t.FailNow()
	}
}

func (w *world) login(u *user) error {
	jar, _ := cookiejar.New(nil)
	browser := &http.Client{
		Jar: jar, Transport: hostRouter{u.host, w.clients.two}, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	begun, err := browser.Do(navigation(u.origin + "/bff/login"))
	if err != nil {
		return err
	}
	begun.Body.Close()
	callback, err := devprovider.SignIn(browser, begun.Header.Get("Location"), u.sub, "")
	if err != nil {
		return err
	}
	back, err := browser.Do(navigation(callback))
	if err != nil {
		return err
	}
	back.Body.Close()
	origin, _ := url.Parse(u.origin)
	for _, c := range jar.Cookies(origin) {
		if c.Name == "__Host-Http-session" {
			u.cookie = c.String()
			return nil
		}
	}
	return fmt.Errorf("status %d and no session", back.StatusCode)
}

func navigation(to string) *http.Request {
	r, err := http.NewRequest(http.MethodGet, to, nil)
	if err != nil {
		panic(err)
	}
	r.Header = http.Header{"Accept": {"text/html"}, "Sec-Fetch-Site": {"none"}, "Sec-Fetch-Mode": {"navigate"}, "Sec-Fetch-Dest": {"document"}}
	return r
}

// hostRouter sends the gateway's requests to the gateway, and others elsewhere.
type hostRouter struct {
	host    string
	gateway http.RoundTripper
}

func (h hostRouter) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == h.host {
		return h.gateway.RoundTrip(r)
	}
	return http.DefaultTransport.RoundTrip(r)
}

// browse sends n requests of a user, one after another, over connections that all
// users share.
func (w *world) browse(u *user, n int, seed uint64) {
	random := mathrand.New(mathrand.NewPCG(seed, 1))
	of := append(slices.Repeat([]string{plain}, 20), modes...)
	for range n {
		a := draw(u, random, of...)
		switch a.mode {
		case socket, goodbye:
			w.talk(a, random)
		default:
			way := w.clients.two
			if random.IntN(2) == 0 {
				way = w.clients.one
			}
			w.send(a, way, random)
		}
		w.count.add(a.mode)
	}
}

// send does one request, of a client that may leave.
func (w *world) send(a *ask, way http.RoundTripper, random *mathrand.Rand) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		Got1xxResponse: func(status int, h textproto.MIMEHeader) error {
			w.hinted(a, status, http.Header(h))
			return nil
		},
	})
	var body io.Reader
	if len(a.body) > 0 {
		body = bytes.NewReader(a.body)
	}
	if a.mode == quit {
		body = io.MultiReader(bytes.NewReader(a.body[:random.IntN(len(a.body))]), leaving{cancel})
	} else if random.IntN(2) == 0 && body != nil {
		body = io.MultiReader(body) // whose length net/http does not know
	}
	r, err := http.NewRequestWithContext(ctx, a.method, a.origin+a.path(), body)
	if err != nil {
		panic(err)
	}
	r.Header = a.header()
	if body != nil && random.IntN(4) == 0 {
		r.Header.Set("Expect", "100-continue")
	}
	res, err := way.RoundTrip(r)
	if err != nil {
		if a.mode != quit && a.mode != early {
			w.report("failure", "%s: %v", a.echo, err)
		}
		return
	}
	defer res.Body.Close()
	if a.mode == quit {
		w.report("failure", "%s: status %d to half a request", a.echo, res.StatusCode)
		return
	}
	if !w.answered(a, res) {
		return
	}
	if a.mode == leave {
		part := make([]byte, random.IntN(100_000))
		n, err := io.ReadFull(res.Body, part)
		if err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && err != io.EOF {
			w.report("failure", "%s: %v", a.echo, err)
		}
		w.same(a, part[:n], a.receives(), n < len(a.receives()))
		return
	}
	w.read(a, res)
}

// leaving is where a client hangs up in the middle of what it sends.
type leaving struct{ hangUp context.CancelFunc }

func (l leaving) Read([]byte) (int, error) {
	l.hangUp()
	return 0, context.Canceled
}

// pipeline is a proxy in front of the gateway that puts n requests of all users of
// an app on connections of its own, several before it reads the answer to the
// first (RFC 9112, section 9.3.2).
func (w *world) pipeline(n int, seed uint64) {
	random := mathrand.New(mathrand.NewPCG(seed, 2))
	at := w.apps[seed%2]
	for n > 0 {
		conn, err := w.clients.dial(at.host)
		if err != nil {
			w.report("failure", "connection of a proxy: %v", err)
			return
		}
		in := bufio.NewReader(conn)
		for range 20 {
			asks := w.batch(at, random)
			n -= len(asks)
			if !w.exchange(conn, in, asks) {
				break
			}
		}
		conn.Close()
	}
}

// batch draws requests of several users of an app; only the last may be one that
// ends the connection.
func (w *world) batch(at *app, random *mathrand.Rand) (asks []*ask) {
	for range 1 + random.IntN(6) {
		u := w.users[random.IntN(len(w.users))]
		for u.app != at {
			u = w.users[random.IntN(len(w.users))]
		}
		asks = append(asks, draw(u, random, plain, plain, hint, tail, empty, refuse, slow, gone))
	}
	if random.IntN(10) == 0 {
		asks[len(asks)-1] = draw(asks[0].user, random, cut)
	}
	return asks
}

// exchange sends requests and then reads their answers. It tells whether the
// connection can be used again.
func (w *world) exchange(conn net.Conn, in *bufio.Reader, asks []*ask) bool {
	conn.SetDeadline(time.Now().Add(patience))
	var out bytes.Buffer
	for _, a := range asks {
		fmt.Fprintf(&out, "%s %s HTTP/1.1\r\nHost: %s\r\n", a.method, a.path(), a.host)
		a.header().Write(&out)
		if len(a.body) > 0 {
			fmt.Fprintf(&out, "Content-Length: %d\r\n", len(a.body))
		}
		out.WriteString("\r\n")
		out.Write(a.body)
		w.count.add(a.mode)
	}
	if _, err := conn.Write(out.Bytes()); err != nil {
		w.report("failure", "a proxy sends: %v", err)
		return false
	}
	for i, a := range asks {
		res, err := w.receive(in, a)
		if err != nil {
			w.report("failure", "%s, number %d of %d: %v", a.echo, i, len(asks), err)
			return false
		}
		if w.answered(a, res) {
			w.read(a, res)
		}
		res.Body.Close()
		if a.mode == cut || res.Close {
			if i < len(asks)-1 {
				w.report("failure", "%s is the last of the connection, and number %d of %d", a.echo, i, len(asks))
			}
			return false
		}
	}
	return true
}

// receive reads an answer, and the interim ones before it.
func (w *world) receive(in *bufio.Reader, a *ask) (*http.Response, error) {
	for {
		res, err := http.ReadResponse(in, &http.Request{Method: a.method})
		if err != nil || res.StatusCode >= 200 {
			return res, err
		}
		w.hinted(a, res.StatusCode, res.Header)
	}
}

// talk opens a WebSocket and says a few things.
func (w *world) talk(a *ask, random *mathrand.Rand) {
	conn, err := w.clients.dial(a.host)
	if err != nil {
		w.report("failure", "%s: %v", a.echo, err)
		return
	}
	defer conn.Close()
	var out bytes.Buffer
	fmt.Fprintf(&out, "GET %s HTTP/1.1\r\nHost: %s\r\nOrigin: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", a.path(), a.host, a.origin)
	a.header().Write(&out)
	out.WriteString("\r\n")
	in := bufio.NewReader(conn)
	if _, err := conn.Write(out.Bytes()); err != nil {
		w.report("failure", "%s: %v", a.echo, err)
		return
	}
	res, err := http.ReadResponse(in, &http.Request{Method: http.MethodGet})
	if err != nil || res.StatusCode != http.StatusSwitchingProtocols || res.Header.Get("X-Echo") != a.echo || res.Header.Get("X-From") != a.address {
		w.report("answer", "%s: %v %+v", a.echo, err, res)
		return
	}
	for i := range 1 + random.IntN(5) {
		said := fmt.Sprintf("%d %s %s", i, a.sub, a.nonce)
		if _, err := conn.Write(frame(opText, []byte(said), []byte{1, 2, 3, byte(i)})); err != nil {
			w.report("failure", "%s: %v", a.echo, err)
			return
		}
		if a.mode == goodbye && random.IntN(3) == 0 {
			return
		}
		op, heard, err := readFrame(in)
		if want := a.sub + " hears " + said; err != nil || op != opText || string(heard) != want {
			w.report("answer", "%s: heard %d %q, %v; want %q", a.echo, op, heard, err, want)
			return
		}
	}
	if a.mode == goodbye {
		return
	}
	conn.Write(frame(opClose, []byte{3, 232}, []byte{9, 8, 7, 6}))
	if op, _, err := readFrame(in); err != nil || op != opClose {
		w.report("failure", "%s: ends with frame %d, %v", a.echo, op, err)
	}
}

// everybodyAtOnce sends a request of each user: what broke off before has cost
// nobody the session.
func (w *world) everybodyAtOnce() {
	var wg sync.WaitGroup
	for i, u := range w.users {
		random := mathrand.New(mathrand.NewPCG(uint64(i), uint64(w.count.total())))
		wg.Go(func() {
			a := draw(u, random, plain)
			w.send(a, w.clients.two, random)
			w.count.add(a.mode)
		})
	}
	wg.Wait()
}
