package proxy

import (
	"context"
	"net/http"
	"strings"
	"time"
)

// isGRPC tells gRPC by its media type. gRPC-Web is for fetch, and an API like any
// other.
func isGRPC(contentType []string) bool {
	const grpc = "application/grpc"
	if len(contentType) != 1 || len(contentType[0]) < len(grpc) || !strings.EqualFold(contentType[0][:len(grpc)], grpc) {
		return false
	}
	rest := strings.TrimLeft(contentType[0][len(grpc):], " \t")
	return rest == "" || rest[0] == '+' || rest[0] == ';'
}

// openCall makes a stream of a gRPC call, from its beginning: it may go on for long
// before its upstream says a word, and its client need not say any either.
func (x *exchange) openCall(r *http.Request) (*http.Request, error) {
	x.awaitBody(0)
	ctx, cancel := context.WithCancel(r.Context())
	x.body = &body{x: x, call: true, stop: func() {
		cancel()
		// The upstream's side ends only when nobody waits for more of the client's.
		_ = http.NewResponseController(x.ResponseWriter).SetReadDeadline(time.Now())
	}}
	if err := x.open(x.meters.grpc, x.body.end); err != nil {
		cancel()
		return nil, err
	}
	return r.WithContext(ctx), nil
}

// refuseCall refuses a gRPC call by an answer of trailers only: its clients take
// every HTTP status but 200 for a fault of something on the way (gRPC over HTTP/2,
// "Responses"). What is counted and logged is the real one.
func (x *exchange) refuseCall(code string, a answer) {
	h := x.Header()
	h.Set("Content-Type", "application/grpc")
	h.Set("Grpc-Status", grpcStatus(a.status))
	h.Set("Grpc-Message", grpcMessage(code, a))
	x.wrote(a.status)
	x.ResponseWriter.WriteHeader(http.StatusOK)
}

// endCall says in the trailers why a call was broken off.
func (x *exchange) endCall() {
	code := x.body.why().Code()
	h := x.Header()
	for _, name := range []string{"Grpc-Status", "Grpc-Message"} {
		delete(h, name) // of the upstream, which announced them
	}
	h.Set(http.TrailerPrefix+"Grpc-Status", grpcStatus(answers[code].status))
	h.Set(http.TrailerPrefix+"Grpc-Message", grpcMessage(code, answers[code]))
}

// grpcMessage has nothing in it that would have to be percent-encoded.
func grpcMessage(code string, a answer) string { return code + ": " + a.title }

// grpcStatus is the gRPC status for one of ours.
func grpcStatus(status int) string {
	switch status {
	case http.StatusUnauthorized:
		return "16" // UNAUTHENTICATED
	case http.StatusForbidden:
		return "7" // PERMISSION_DENIED
	case http.StatusNotFound, http.StatusMethodNotAllowed:
		return "12" // UNIMPLEMENTED
	case http.StatusRequestEntityTooLarge, http.StatusTooManyRequests:
		return "8" // RESOURCE_EXHAUSTED
	case http.StatusRequestTimeout, http.StatusGatewayTimeout:
		return "4" // DEADLINE_EXCEEDED
	case http.StatusBadGateway, http.StatusServiceUnavailable:
		return "14" // UNAVAILABLE
	}
	return "13" // INTERNAL
}
