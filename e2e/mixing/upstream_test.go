package mixing

import (
	"bufio"
	"bytes"
	"crypto/sha1"
	"crypto/tls"
	"encoding/base64"
	"encoding/json"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"time"
)

// newUpstreams starts the upstreams and returns the routes to them. Two routes
// each lead to one.
func (w *world) newUpstreams(c *certificate) (routes []any) {
	u := &upstream{w: w, seen: map[string]bool{}}
	one := httptest.NewUnstartedServer(u)
	one.Config.ErrorLog = log.New(io.Discard, "", 0)
	one.Config.Protocols = new(http.Protocols)
	one.Config.Protocols.SetHTTP1(true)
	one.Config.Protocols.SetUnencryptedHTTP2(true)
	one.Start()
	w.t.Cleanup(one.Close)
	secure := httptest.NewUnstartedServer(u)
	secure.EnableHTTP2 = true
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.TLS = &tls.Config{Certificates: []tls.Certificate{c.Certificate}}
	secure.StartTLS()
	w.t.Cleanup(secure.Close)
	tlsURL := strings.Replace(secure.URL, "127.0.0.1", "localhost", 1)
	for path, url := range map[string]string{"/one/": one.URL, "/other/": one.URL, "/clear/": strings.Replace(one.URL, "http", "h2c", 1)} {
		routes = append(routes, map[string]any{"path": path, "upstream": url, "timeout": patience.String()})
	}
	for _, path := range []string{"/secure/", "/safe/"} {
		routes = append(routes, map[string]any{"path": path, "upstream": tlsURL, "timeout": patience.String(), "tls": map[string]any{"ca": c.file}})
	}
	return routes
}

// upstream says what it was asked, and by whose token.
type upstream struct {
	w *world

	mu   sync.Mutex      // guards seen
	seen map[string]bool // nonces of requests that are to fail once
}

// first tells whether a nonce is met for the first time.
func (u *upstream) first(nonce string) bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	met := u.seen[nonce]
	u.seen[nonce] = true
	return !met
}

func (u *upstream) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	mode, nonce, lines := asked(r)
	token, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	app, sub := owner(token)
	u.check(r, app, sub, nonce)
	sent := "unread"
	if mode != early {
		body, err := io.ReadAll(r.Body)
		sent = digest(body)
		u.checkBody(r, body, err != nil)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
	}
	h := rw.Header()
	h.Set("X-Echo", strings.Join([]string{app, sub, nonce, r.Method, r.URL.RequestURI(), sent}, " "))
	h.Set("Set-Cookie", "nonce="+nonce)
	h.Set("X-From", strings.TrimSuffix(r.Header.Get("X-Forwarded-For"), ", 127.0.0.1"))
	h.Set("Content-Type", "text/plain")
	answer := text(lines, "answer", sub, nonce)
	switch mode {
	case refuse:
		if u.refuses(token, nonce) {
			h.Set("WWW-Authenticate", `Bearer error="invalid_token"`)
			rw.WriteHeader(http.StatusUnauthorized)
			return
		}
	case hint:
		h.Set("Link", "</"+sub+"/"+nonce+">; rel=preload")
		rw.WriteHeader(http.StatusEarlyHints)
		h.Del("Link")
	case tail:
		h.Set("Trailer", "X-Tail")
		defer h.Set("X-Tail", sub+" "+nonce)
	case empty:
		rw.WriteHeader(http.StatusNoContent)
		return
	case gone:
		if u.first(nonce) {
			panic(http.ErrAbortHandler)
		}
	case slow:
		for len(answer) > 0 {
			n := min(len(answer), 100)
			rw.Write(answer[:n])
			http.NewResponseController(rw).Flush()
			answer = answer[n:]
		}
	case cut:
		rw.Write(answer[:len(answer)/2])
		http.NewResponseController(rw).Flush()
		panic(http.ErrAbortHandler)
	case early:
		// On HTTP/2 that would be about the others on the connection.
		if r.ProtoMajor == 1 {
			h.Set("Connection", "close")
		}
	case socket, goodbye:
		u.tunnel(rw, r, sub, nonce)
		return
	}
	rw.Write(answer)
}

// refuses tells whether a token is refused: one in three, for good, but for requests
// that come a second time with another.
func (u *upstream) refuses(token, nonce string) bool {
	if !u.first(nonce) {
		u.w.retries.Add(1)
		return false
	}
	return digest([]byte(token))[0] < '6'
}

// check holds a request against itself: all parts of it have to be one user's.
func (u *upstream) check(r *http.Request, app, sub, nonce string) {
	get := func(name string) string {
		if c, err := r.Cookie(name); err == nil {
			return c.Value
		}
		return ""
	}
	h := r.Header
	if who := h.Get("X-Who"); sub != who || len(h["Authorization"]) != 1 {
		u.w.report("user", "%s sends %d tokens, the first of %s", who, len(h["Authorization"]), sub)
	}
	if id := h.Get("X-App"); app != id {
		u.w.report("app", "%s at %s sends a token of %s", sub, id, app)
	}
	for what, pair := range map[string][2]string{
		"nonce":      {h.Get("X-Nonce"), nonce},
		"query":      {r.URL.Query().Get("n"), nonce},
		"cookie":     {get("nonce"), nonce},
		"user":       {get("who"), h.Get("X-Who")},
		"request id": {h.Get("X-Request-Id"), nonce},
		"app":        {r.Header.Get("X-Forwarded-Host"), u.w.hostOf(h.Get("X-App"))},
	} {
		if pair[0] != pair[1] {
			u.w.report("request", "%s of %s: the %s is %q, want %q", r.URL, h.Get("X-Who"), what, pair[0], pair[1])
		}
	}
	if len(r.Cookies()) != 2 {
		u.w.report("request", "%s has the cookies %q", r.URL, h["Cookie"])
	}
}

func (w *world) hostOf(id string) string {
	for _, a := range w.apps {
		if a.id == id {
			return a.host
		}
	}
	return ""
}

// checkBody holds a body against the request that it came with.
func (u *upstream) checkBody(r *http.Request, body []byte, broke bool) {
	line := text(1, "body", r.Header.Get("X-Who"), r.Header.Get("X-Nonce"))
	want := bytes.Repeat(line, len(body)/len(line)+1)
	if !bytes.HasPrefix(want, body) || !broke && len(body)%len(line) != 0 {
		u.w.report("request", "%s of %s has the body %q", r.URL, r.Header.Get("X-Who"), body[:min(len(body), 200)])
	}
}

// owner reads whose a token is. Who signed it is not the question.
func owner(token string) (app, sub string) {
	parts := strings.Split(token, ".")
	if len(parts) != 3 {
		return "", ""
	}
	var claims struct {
		Sub    string
		Client string `json:"client_id"`
	}
	payload, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil || json.Unmarshal(payload, &claims) != nil {
		return "", ""
	}
	return claims.Client, claims.Sub
}

// tunnel answers every frame by whose token opened the WebSocket (RFC 6455).
func (u *upstream) tunnel(rw http.ResponseWriter, r *http.Request, sub, nonce string) {
	conn, both, err := http.NewResponseController(rw).Hijack()
	if err != nil {
		u.w.report("failure", "%s: %v", r.URL, err)
		return
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(time.Minute))
	accept := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	both.WriteString("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		base64.StdEncoding.EncodeToString(accept[:]) + "\r\nX-Echo: " + rw.Header().Get("X-Echo") + "\r\nX-From: " + rw.Header().Get("X-From") + "\r\n\r\n")
	for both.Flush() == nil {
		op, said, err := readFrame(both.Reader)
		if err != nil {
			return
		}
		if op == opClose {
			both.Write(frame(op, said, nil))
			both.Flush()
			return
		}
		if !bytes.HasSuffix(said, []byte(r.Header.Get("X-Who")+" "+nonce)) {
			u.w.report("request", "a frame in %s of %s: %q", r.URL, r.Header.Get("X-Who"), said)
		}
		both.Write(frame(op, append([]byte(sub+" hears "), said...), nil))
	}
}

const (
	opText  = 1
	opClose = 8
)

// frame makes a short frame (RFC 6455, section 5.2), masked if there is a mask.
func frame(op byte, payload, mask []byte) []byte {
	head := []byte{0x80 | op, byte(len(payload))}
	if len(payload) > 125 {
		head = []byte{0x80 | op, 126, byte(len(payload) >> 8), byte(len(payload))}
	}
	if mask == nil {
		return append(head, payload...)
	}
	head[1] |= 0x80
	head = append(head, mask...)
	for i, c := range payload {
		head = append(head, c^mask[i%4])
	}
	return head
}

func readFrame(r *bufio.Reader) (op byte, payload []byte, err error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(r, head); err != nil {
		return 0, nil, err
	}
	size := int(head[1] & 0x7f)
	if size == 126 {
		more := make([]byte, 2)
		if _, err := io.ReadFull(r, more); err != nil {
			return 0, nil, err
		}
		size = int(more[0])<<8 | int(more[1])
	}
	mask := make([]byte, 4)
	if head[1]&0x80 != 0 {
		if _, err := io.ReadFull(r, mask); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, size)
	if _, err := io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0] & 0xf, payload, nil
}
