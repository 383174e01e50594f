package api

import (
	"context"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/rs/zerolog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"daybreak/api/audit"
)

// gate is what every call passes before a service sees it, and on its way back: certificate, limit, role, rules of the
// message, deadline, audit; error mapping, recovery, metrics.
type gate struct {
	log zerolog.Logger
	// strangers logs refusals that anybody can cause: few of them.
	strangers zerolog.Logger
	rules     map[string]rule
	limits    *throttle
	metrics   *metrics
	audit     *audit.Log
	hosts     hostChecker
}

// hostChecker says whether a host's certificate still belongs to a host of the cluster.
type hostChecker interface {
	checkHost(ctx context.Context, name, uid string) error
}

func (g *gate) unary(ctx context.Context, request any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (answer any, err error) {
	began := time.Now()
	defer func() { g.metrics.ended(info.FullMethod, status.Code(err), time.Since(began), false) }()
	return g.recovered(func() (any, error) { return g.unaryThrough(ctx, request, info.FullMethod, handler) })
}

func (g *gate) unaryThrough(ctx context.Context, request any, method string, handler grpc.UnaryHandler) (any, error) {
	ctx, cancel := g.deadline(ctx)
	defer cancel()
	ctx, rule, err := g.enter(ctx, method)
	if err != nil {
		return nil, err
	}
	message, ok := request.(proto.Message)
	if !ok {
		return nil, status.Error(codes.Internal, "the request is no message")
	}
	if err := validate(message); err != nil {
		return nil, g.answer(method, rule, err)
	}
	note := &entry{gate: g, method: method, audited: rule.audited}
	if rule.late {
		ctx = withEntry(ctx, note)
	} else if err := note.begin(ctx, message); err != nil {
		return nil, err
	}
	answer, err := g.recovered(func() (any, error) { return handler(ctx, request) })
	err = g.answer(method, rule, err)
	note.end(err)
	if err != nil && rule.late && !note.begun {
		g.strangers.Warn().Err(err).Str("method", method).Str("from", callerOf(ctx).address).Msg("a stranger was refused")
	}
	if err != nil {
		return nil, err
	}
	return answer, nil
}

func (g *gate) stream(server any, stream grpc.ServerStream, info *grpc.StreamServerInfo, handler grpc.StreamHandler) (err error) {
	began := time.Now()
	defer func() { g.metrics.ended(info.FullMethod, status.Code(err), time.Since(began), true) }()
	_, err = g.recovered(func() (any, error) { return nil, g.streamThrough(server, stream, info.FullMethod, handler) })
	return err
}

func (g *gate) streamThrough(server any, stream grpc.ServerStream, method string, handler grpc.StreamHandler) error {
	ctx, rule, err := g.enter(stream.Context(), method)
	if err != nil {
		return err
	}
	// A stream lasts no longer than the certificate that opened it.
	ctx, cancel := context.WithDeadline(ctx, callerOf(ctx).Expires)
	defer cancel()
	note := &entry{gate: g, method: method, audited: rule.audited}
	wrapped := &gatedStream{ServerStream: stream, ctx: ctx, note: note}
	_, err = g.recovered(func() (any, error) { return nil, handler(server, wrapped) })
	if err != nil && ctx.Err() == context.DeadlineExceeded && stream.Context().Err() == nil {
		err = status.Error(codes.Unauthenticated, "the certificate that opened this stream has ended: renew it and try again")
	}
	err = g.answer(method, rule, err)
	note.end(err)
	return err
}

// enter lets a call in, or says why not.
func (g *gate) enter(ctx context.Context, method string) (context.Context, rule, error) {
	who, err := identify(ctx, time.Now())
	if err != nil {
		return ctx, rule{}, err
	}
	ctx = withCaller(ctx, who)
	rule := g.rules[method]
	if !g.limits.allow(who) {
		return ctx, rule, status.Errorf(codes.ResourceExhausted, "too many calls by %s: slow down and try again", who)
	}
	if !who.certified && !rule.nobody {
		return ctx, rule, status.Error(codes.Unauthenticated, "no client certificate: enrol with a token from \"daybreak token create\"")
	}
	if who.certified {
		if err := rule.allow(who.Role, method); err != nil {
			g.refused(ctx, method, err)
			return ctx, rule, status.Error(codes.PermissionDenied, err.Error())
		}
		if who.IsHost() {
			if err := g.hosts.checkHost(ctx, who.Name, who.HostUID); err != nil {
				return ctx, rule, g.answer(method, rule, err)
			}
		}
	}
	return ctx, rule, nil
}

// deadline bounds a unary call whose caller did not.
func (g *gate) deadline(ctx context.Context) (context.Context, context.CancelFunc) {
	if until, ok := ctx.Deadline(); ok && time.Until(until) <= unaryTimeout {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, unaryTimeout)
}

// recovered runs a handler and turns a panic into an error: one bad request must not end the control plane.
func (g *gate) recovered(handler func() (any, error)) (answer any, err error) {
	defer func() {
		if reason := recover(); reason != nil {
			g.log.Error().Str("panic", fmt.Sprint(reason)).Bytes("stack", debug.Stack()).Msg("handler panicked")
			answer, err = nil, status.Error(codes.Internal, "the server met a bug; its log says more")
		}
	}()
	return handler()
}

// answer maps an error for the wire and logs what the caller is not told.
func (g *gate) answer(method string, rule rule, err error) error {
	mapped := toStatus(err, rule.changes)
	if status.Code(mapped) == codes.Internal && err != nil {
		g.log.Error().Err(err).Str("method", method).Msg("call failed")
	}
	return mapped
}

// gatedStream checks each message that comes in, and audits the call once its first message says what it is about.
type gatedStream struct {
	grpc.ServerStream
	ctx  context.Context
	note *entry
}

func (s *gatedStream) Context() context.Context { return s.ctx }

func (s *gatedStream) RecvMsg(into any) error {
	if err := s.ServerStream.RecvMsg(into); err != nil {
		return err
	}
	message, ok := into.(proto.Message)
	if !ok {
		return status.Error(codes.Internal, "the request is no message")
	}
	if err := validate(message); err != nil {
		return err
	}
	return s.note.begin(s.ctx, message)
}
