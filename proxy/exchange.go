package proxy

import (
	"bufio"
	"context"
	"encoding/binary"
	"encoding/hex"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	"sessiongate/session"
)

// exchange is one request and its answer on their way through the gateway. It
// is the one thing allocated for it: a response writer that notes the status, a
// context that handlers find the request's id and address by, and the memory of
// the header values that we add.
type exchange struct {
	http.ResponseWriter
	context.Context

	gateway *Gateway
	began   time.Time
	meters  *meters
	app     *app
	route   *route
	session *session.Session
	token   *session.AccessToken

	peer, client string // the address of the connection, and the believed one of the browser
	trusted      bool   // the peer is a trusted proxy
	requestID    string
	traceparent  string
	path         string // as it came
	cookie       string // the value of the session cookie, of which there are
	cookies      int
	cors         []string // Access-Control-Allow-Origin, for a listed origin
	ofRoute      bool     // the answer belongs to routes, where CORS is

	navigation bool // a document navigation
	page       bool // the answer is looked at by a person
	handshake  bool // a WebSocket handshake
	grpc       bool // the client takes this for a gRPC call
	call       bool // and so may the upstream
	shape      bool // the route's response_headers have yet to be applied
	events     bool // the answer, if there is one, is a stream of our own

	target  string         // path on the upstream
	header  http.Header    // of the upstream request
	answer  *http.Response // of the upstream
	slow    atomic.Bool    // a read of the request's body took too long
	due     atomic.Int64   // until when more of it has to be there, after began; 0: no bound
	failure error          // why there is no answer of the upstream

	status   int
	written  int64
	hijacked bool
	done     bool    // the handler came to its end
	stream   *stream // what this became, if it goes on
	body     *body   // the same, if it ends with its session and is no tunnel
	tunnel   *tunnel
	stall    *stall   // over HTTP/2
	upstream net.Conn // of a handshake

	plain  bool // it came without TLS, which it should not
	closes bool // the connection ends with the answer

	values [3]string // behind header fields of the upstream request
}

type exchangeKey struct{}

// Value makes the exchange known below.
func (x *exchange) Value(key any) any {
	if key == (exchangeKey{}) {
		return x
	}
	return x.Context.Value(key)
}

func exchangeOf(ctx context.Context) *exchange {
	x, _ := ctx.Value(exchangeKey{}).(*exchange)
	return x
}

// ClientAddress is the address of the browser, as far as it can be believed: of
// the peer, or of the last hop before the trusted proxies.
func ClientAddress(r *http.Request) string {
	if x := exchangeOf(r.Context()); x != nil {
		return x.client
	}
	return hostOf(r.RemoteAddr)
}

// RequestID is the id by which logs, error pages and the upstream know a request.
func RequestID(r *http.Request) string {
	if x := exchangeOf(r.Context()); x != nil {
		return x.requestID
	}
	return ""
}

// begin notes who asks.
func (g *Gateway) begin(w http.ResponseWriter, r *http.Request) *exchange {
	x := &exchange{ResponseWriter: w, Context: r.Context(), gateway: g, began: time.Now(), meters: g.nowhere}
	// A Content-Length beside it is gone by now, and so is a coding in HTTP/1.0. Both
	// may have been read differently in front of us (RFC 9112, section 6.1).
	x.closes = r.ProtoMajor == 1 && (r.ProtoMinor == 0 || len(r.TransferEncoding) > 0)
	x.grpc = r.ProtoMajor == 2 && r.Method == http.MethodPost && isGRPC(r.Header["Content-Type"])
	x.watchWrites(r)
	x.peer = hostOf(r.RemoteAddr)
	x.client = x.peer
	if len(g.trusted) > 0 && g.trusts(x.peer) {
		x.trusted = true
		x.client = g.clientBehind(x.peer, r.Header)
		x.believe(r.Header)
	}
	if x.traceparent == "" {
		x.traceparent = newTraceparent()
	}
	if x.requestID == "" {
		x.requestID = x.traceparent[3:35]
	}
	return x
}

// believe takes over the ids of a trusted proxy, if they are well-formed.
func (x *exchange) believe(h http.Header) {
	if v := h["Traceparent"]; len(v) == 1 && isTraceparent(v[0]) {
		x.traceparent = v[0]
	}
	if v := h["X-Request-Id"]; len(v) == 1 && isRequestID(v[0]) {
		x.requestID = v[0]
	}
}

// newTraceparent begins a trace (W3C Trace Context, section 3.2). It is marked as
// sampled: upstreams that go by their caller's decision would keep nothing else.
func newTraceparent() string {
	var ids [24]byte
	binary.BigEndian.PutUint64(ids[0:], rand.Uint64())
	binary.BigEndian.PutUint64(ids[8:], rand.Uint64())
	binary.BigEndian.PutUint64(ids[16:], rand.Uint64()|1) // a span id is never 0
	b := [55]byte{0: '0', 1: '0', 2: '-', 35: '-', 52: '-', 53: '0', 54: '1'}
	hex.Encode(b[3:], ids[:16])
	hex.Encode(b[36:], ids[16:])
	return string(b[:])
}

// isTraceparent checks a version 00 traceparent.
func isTraceparent(s string) bool {
	if len(s) != 55 || s[:3] != "00-" || s[35] != '-' || s[52] != '-' {
		return false
	}
	const zeros = "00000000000000000000000000000000"
	return isLowerHex(s[3:35]) && isLowerHex(s[36:52]) && isLowerHex(s[53:]) &&
		s[3:35] != zeros && s[36:52] != zeros[:16]
}

func isLowerHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isRequestID allows what can be quoted anywhere.
func isRequestID(s string) bool {
	if s == "" || len(s) > 128 {
		return false
	}
	for i := range len(s) {
		if !isUnreserved(s[i]) {
			return false
		}
	}
	return true
}

// WriteHeader notes the status. Of interim answers only Link passes: whatever
// else an upstream sends early would pass unfiltered.
func (x *exchange) WriteHeader(status int) {
	if status == http.StatusContinue {
		return // net/http has said so itself, when the body was first read
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		h := x.Header()
		for name := range h {
			if name != "Link" {
				delete(h, name)
			}
		}
		if v := h["Link"]; v != nil && x.route != nil {
			h["Link"] = x.outsideIn(v)
		}
		x.ResponseWriter.WriteHeader(status)
		return
	}
	x.wrote(status)
	x.ResponseWriter.WriteHeader(status)
}

// wrote notes the status of the answer, once.
func (x *exchange) wrote(status int) {
	if x.status != 0 {
		return
	}
	x.status = status
	if x.closes {
		x.Header()["Connection"] = closeConnection
	}
	if x.shape {
		x.route.answerRules.apply(x.Header())
	}
	if x.events && status == http.StatusOK {
		x.opened(&stream{open: x.meters.events})
	}
}

func (x *exchange) Write(b []byte) (int, error) {
	x.wrote(http.StatusOK)
	var n int
	var err error
	if x.stall != nil {
		n, err = x.stall.write(b)
	} else {
		n, err = x.ResponseWriter.Write(b)
	}
	x.written += int64(n)
	return n, err
}

// ReadFrom lets static files go out by sendfile.
func (x *exchange) ReadFrom(src io.Reader) (int64, error) {
	if x.stall != nil {
		return io.Copy(struct{ io.Writer }{x}, src) // there is no sendfile over HTTP/2
	}
	x.wrote(http.StatusOK)
	n, err := io.Copy(x.ResponseWriter, src)
	x.written += n
	return n, err
}

// FlushError is used by http.ResponseController, Flush by those that ask for an
// http.Flusher.
func (x *exchange) FlushError() error {
	x.wrote(http.StatusOK)
	if x.stall != nil {
		return x.stall.flush()
	}
	return http.NewResponseController(x.ResponseWriter).Flush()
}

// Flush implements http.Flusher.
func (x *exchange) Flush() { x.FlushError() }

// hijackGrace is how long a browser may take to read what is left for it when
// its request is broken off.
const hijackGrace = 500 * time.Millisecond

// Hijack hands the connection over: from then on nothing can be answered here,
// and the server does not end it at a shutdown any more.
func (x *exchange) Hijack() (net.Conn, *bufio.ReadWriter, error) {
	conn, rw, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err != nil {
		return nil, nil, err
	}
	x.hijacked = true
	context.AfterFunc(x.Context, func() { _ = conn.SetDeadline(time.Now().Add(hijackGrace)) })
	if x.tunnel != nil {
		return x.tunnel.browserSide(conn, rw.Reader), rw, nil
	}
	return conn, rw, nil
}

// awaitBody bounds the time until more of the request's body is there. 0 is no
// bound.
func (x *exchange) awaitBody(patience time.Duration) {
	var until time.Time
	x.due.Store(0)
	if patience > 0 {
		until = time.Now().Add(patience)
		x.due.Store(int64(until.Sub(x.began)))
	}
	// Response writers that know no deadlines are those of tests.
	_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(until)
}

// late tells whether the request's body did not come in time. net/http takes that
// for a client that left: it ends the context before it tells whoever reads.
func (x *exchange) late() bool {
	if x.slow.Load() {
		return true
	}
	due := x.due.Load()
	return x.Err() != nil && due != 0 && time.Since(x.began) >= time.Duration(due)
}

// Unwrap lets http.ResponseController reach deadlines.
func (x *exchange) Unwrap() http.ResponseWriter { return x.ResponseWriter }

// statusAborted stands in metrics and logs for requests without an answer, as
// the client went away or the upstream broke off.
const statusAborted = 499

// finish counts the request. It runs while a panic passes, too: that is how an
// answer breaks off (http.ErrAbortHandler).
func (x *exchange) finish(r *http.Request) {
	if !x.done {
		x.status = statusAborted
		if x.header != nil && !x.cut() {
			x.meters.aborted.Inc()
		}
	}
	if x.status == 0 {
		x.status = http.StatusOK // what net/http sends for a handler that wrote nothing
	}
	elapsed := time.Since(x.began)
	if x.body != nil {
		x.body.finish()
	}
	if x.stall != nil {
		x.stall.finish(x.cut())
	}
	if x.stream != nil {
		x.stream.finish()
	}
	if x.stream == nil || !x.stream.timed {
		x.meters.seconds.Observe(elapsed.Seconds())
	}
	x.meters.count(r.Method, x.status)
	if x.gateway.accessLog {
		x.log(r, elapsed)
	}
}

// log writes the access log: never a query, which may hold secrets.
func (x *exchange) log(r *http.Request, elapsed time.Duration) {
	attrs := []slog.Attr{
		slog.String("event", "request"), slog.String("method", r.Method), slog.String("host", r.Host),
		slog.String("path", x.path), slog.Int("status", x.status), slog.Int64("bytes", x.written),
		slog.Float64("seconds", elapsed.Seconds()), slog.String("address", x.client),
		slog.String("request_id", x.requestID),
	}
	if x.route != nil {
		attrs = append(attrs, slog.String("route", x.route.path))
	}
	if x.session != nil {
		attrs = append(attrs, slog.String("session", x.session.LogID()))
	}
	x.gateway.log.LogAttrs(x, slog.LevelInfo, "request", attrs...)
}
