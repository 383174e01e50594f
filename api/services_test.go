package api

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/images"
	"daybreak/orchestrator/catalog"
	"daybreak/orchestrator/dispatch"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/rollout"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// fakeClaims answers as it is told to.
type fakeClaims struct{ err error }

func (f fakeClaims) Claim(_ context.Context, pool, user, requestID string, _ time.Time) (*v1.Desktop, error) {
	return &v1.Desktop{Meta: &v1.Meta{Name: pool + "-1"}, Claim: &v1.DesktopClaim{User: user, RequestId: requestID}}, f.err
}

func (f fakeClaims) Defer(_ context.Context, pool, user string, _ time.Time) (*v1.Desktop, uint32, error) {
	return &v1.Desktop{Meta: &v1.Meta{Name: pool + "-1"}, Claim: &v1.DesktopClaim{User: user, Deferrals: 1}}, 2, f.err
}

// Wait tells a place in the queue, and then the desktop; for "nobody" there is none, and they wait for ever.
func (f fakeClaims) Wait(ctx context.Context, pool, user, requestID string, tell func(*v1.WaitResponse) error) error {
	err := tell(&v1.WaitResponse{Position: 2, Queued: 5})
	if user == "nobody" {
		<-ctx.Done()
		return context.Cause(ctx)
	}
	desktop, failed := f.Claim(ctx, pool, user, requestID, time.Time{})
	return errors.Join(err, failed, tell(&v1.WaitResponse{Desktop: desktop}))
}

func (f fakeClaims) Keep(_ context.Context, pool, user string, busy time.Duration, now time.Time) (*v1.Desktop, error) {
	return &v1.Desktop{Meta: &v1.Meta{Name: pool + "-1"}, Claim: &v1.DesktopClaim{User: user, BusyUntil: timestamppb.New(now.Add(busy))}}, f.err
}

func (f fakeClaims) Release(_ context.Context, pool, _, requestID string) (string, error) {
	return pool + "-" + cmp.Or(requestID, "1"), f.err
}

// fakeSessions says which host called, in place of what dispatch would do.
type fakeSessions struct{ err error }

func (f fakeSessions) Watch(_ *v1.WatchAssignmentsRequest, stream grpc.ServerStreamingServer[v1.Assignments]) error {
	host, err := HostOf(stream.Context())
	if err != nil {
		return err
	}
	return stream.Send(&v1.Assignments{Complete: true, Drop: []string{host}})
}

func (f fakeSessions) Report(ctx context.Context, _ *v1.ReportRequest) (*v1.ReportResponse, error) {
	_, err := HostOf(ctx)
	return &v1.ReportResponse{}, err
}

func (f fakeSessions) Answer(context.Context, *v1.AnswerRequest) (*v1.AnswerResponse, error) {
	return &v1.AnswerResponse{}, f.err
}

func (f fakeSessions) Screenshot(_ context.Context, desktop string) ([]byte, error) {
	return []byte(desktop), f.err
}

func (f fakeSessions) CallBuild(context.Context, string, string, *v1.BuildAsk) error { return f.err }

// withAll gives a server every service.
func withAll(t *testing.T) func(*Config) {
	chunks, _ := newChunks(t)
	return func(c *Config) {
		c.Chunks, c.Claims, c.Sessions = chunks, fakeClaims{}, fakeSessions{}
		c.Explain = func(_ context.Context, name string) (*v1.ExplainResponse, error) {
			return &v1.ExplainResponse{Summary: name + " is well"}, nil
		}
	}
}

func TestThinServices(t *testing.T) {
	r := newRig(t, withAll(t))
	operator := r.as(v1.Role_ROLE_OPERATOR)
	claimed, err := v1.NewClaimServiceClient(operator).Claim(t.Context(), &v1.ClaimRequest{Pool: "sales", User: "佐藤", RequestId: "7"})
	if err != nil {
		t.Fatal(err)
	}
	wantSame(t, claimed.GetDesktop().GetClaim(), &v1.DesktopClaim{User: "佐藤", RequestId: "7"})
	deferred, err := v1.NewClaimServiceClient(operator).Defer(t.Context(), &v1.DeferRequest{Pool: "sales", User: "佐藤"})
	if err != nil || deferred.GetLeft() != 2 || deferred.GetDesktop().GetClaim().GetDeferrals() != 1 {
		t.Errorf("%v, %v", deferred, err)
	}
	kept, err := v1.NewClaimServiceClient(operator).Keep(t.Context(), &v1.KeepRequest{Pool: "sales", User: "佐藤", BusyFor: durationpb.New(time.Hour)})
	if err != nil || time.Until(kept.GetDesktop().GetClaim().GetBusyUntil().AsTime()) < 50*time.Minute {
		t.Errorf("%v, %v", kept, err)
	}
	released, err := v1.NewClaimServiceClient(operator).Release(t.Context(), &v1.ReleaseRequest{Pool: "sales", User: "佐藤", RequestId: "7"})
	if err != nil || released.GetDesktop() != "sales-7" {
		t.Errorf("%v, %v", released, err)
	}
	why, err := v1.NewDesktopServiceClient(operator).Explain(t.Context(), &v1.ExplainRequest{Name: "sales"})
	if err != nil || why.GetSummary() != "sales is well" {
		t.Errorf("%v, %v", why, err)
	}
	picture, err := v1.NewDesktopServiceClient(operator).Screenshot(t.Context(), &v1.ScreenshotRequest{Desktop: "sales-1"})
	if err != nil || string(picture.GetPng()) != "sales-1" {
		t.Errorf("%v, %v", picture, err)
	}
	want := []string{"ClaimService/Claim", "ClaimService/Claim", "ClaimService/Defer", "ClaimService/Defer", "ClaimService/Keep", "ClaimService/Keep", "ClaimService/Release", "ClaimService/Release", "DesktopService/Screenshot", "DesktopService/Screenshot"}
	var have []string
	for _, record := range r.audited() {
		have = append(have, record.Method)
	}
	wantSame(t, have, want)
}

// A wait streams what there is to tell, is audited, and ends with this daybreakd in words that say that it may go on.
func TestWaitStreams(t *testing.T) {
	r := newRig(t, withAll(t))
	client := v1.NewClaimServiceClient(r.as(v1.Role_ROLE_OPERATOR))
	stream, err := client.Wait(t.Context(), &v1.ClaimRequest{Pool: "sales", User: "佐藤"})
	if err != nil {
		t.Fatal(err)
	}
	first, firstErr := stream.Recv()
	second, secondErr := stream.Recv()
	_, end := stream.Recv()
	if err := errors.Join(firstErr, secondErr); err != nil || first.GetPosition() != 2 || second.GetDesktop().GetMeta().GetName() != "sales-1" || !errors.Is(end, io.EOF) {
		t.Errorf("%v, %v, %v, %v", first, second, err, end)
	}
	_, err = v1.NewClaimServiceClient(r.as(v1.Role_ROLE_VIEWER)).Claim(t.Context(), &v1.ClaimRequest{Pool: "sales", User: "佐藤"})
	wantCode(t, err, codes.PermissionDenied, "role")

	endless, err := client.Wait(t.Context(), &v1.ClaimRequest{Pool: "sales", User: "nobody"})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := endless.Recv(); err != nil {
		t.Fatal(err)
	}
	r.stop()
	_, err = endless.Recv()
	wantCode(t, err, codes.Unavailable, "wait again")
}

// TestAgentsAreKnownByTheirCertificate: the services learn the host's name from it.
func TestAgentsAreKnownByTheirCertificate(t *testing.T) {
	r := newRig(t, withAll(t))
	host := &v1.Host{Meta: &v1.Meta{Name: "kvm1", Uid: "11111111-1111-4111-8111-111111111111"}, Spec: &v1.HostSpec{}}
	r.put(store.WriterAPI, host)
	stream, err := v1.NewAgentServiceClient(r.asHost("kvm1", host.Meta.Uid)).Watch(t.Context(), &v1.WatchAssignmentsRequest{
		SessionId: "0123456789abcdef", Capacity: &v1.HostCapacity{},
	})
	if err != nil {
		t.Fatal(err)
	}
	first, err := stream.Recv()
	if err != nil || first.GetDrop()[0] != "kvm1" {
		t.Errorf("%v, %v", first, err)
	}
	_, err = v1.NewAgentServiceClient(r.asHost("kvm1", host.Meta.Uid)).Report(t.Context(), &v1.ReportRequest{SessionId: "short"})
	wantCode(t, err, codes.InvalidArgument, "sessionId")
}

// TestScreenshotElsewhere: a daybreakd that does not lead says who does.
func TestScreenshotElsewhere(t *testing.T) {
	r := newRig(t, withAll(t), func(c *Config) {
		c.Sessions = fakeSessions{err: fmt.Errorf("take screenshot: %w", store.ErrNotLeader)}
		c.Cluster.Leader = func(context.Context) string { return "control2:7443" }
	})
	_, err := v1.NewDesktopServiceClient(r.as(v1.Role_ROLE_OPERATOR)).Screenshot(t.Context(), &v1.ScreenshotRequest{Desktop: "sales-1"})
	wantCode(t, err, codes.Unavailable, "control2:7443")
}

func TestErrors(t *testing.T) {
	for _, row := range []struct {
		err     error
		changes bool
		code    codes.Code
		text    string
	}{
		{nil, true, codes.OK, ""},
		{fmt.Errorf("get pool sales: %w", store.ErrNotFound), false, codes.NotFound, "get pool sales: not found"},
		{fmt.Errorf("pool sales: %w", store.ErrExists), true, codes.AlreadyExists, "pool sales: already exists"},
		{fmt.Errorf("pool sales: %w", store.ErrConflict), true, codes.Aborted, "pool sales: changed meanwhile"},
		{store.ErrNotLeader, true, codes.Unavailable, "no longer the leader"},
		{store.ErrInvalid, true, codes.InvalidArgument, "invalid object"},
		{store.ErrBroken, false, codes.DataLoss, "stored value is broken"},
		{store.ErrNotOwner, true, codes.Internal, "the server failed; its log says why"},
		{store.ErrUnknownOutcome, true, codes.Unknown, "outcome unknown: " + maybe},
		{fmt.Errorf("commit: %w: %w", context.DeadlineExceeded, store.ErrUnknownOutcome), true, codes.Unknown, "commit: context deadline exceeded: outcome unknown: " + maybe},
		{&pool.NoneReadyError{Pool: "sales", Counts: "2 starting"}, true, codes.ResourceExhausted, "no desktop of pool sales is ready: 2 starting"},
		{fmt.Errorf("release: %w", pool.ErrNotClaimed), true, codes.NotFound, "release: there is no such claim"},
		{pool.ErrPoolDeleted, true, codes.FailedPrecondition, "pool is being deleted"},
		{dispatch.ErrUnreachable, false, codes.Unavailable, "host is not reachable"},
		{dispatch.ErrBusy, false, codes.ResourceExhausted, "too many questions wait for an answer"},
		{dispatch.ErrNotRunning, false, codes.FailedPrecondition, "desktop is not running"},
		{dispatch.ErrRefused, false, codes.FailedPrecondition, "host could not do it"},
		{catalog.ErrRefused, true, codes.FailedPrecondition, "refused"},
		{rollout.ErrRefused, true, codes.FailedPrecondition, "refused"},
		{images.ErrCorrupt, true, codes.DataLoss, "content does not match its digest"},
		{images.ErrIncomplete, true, codes.FailedPrecondition, "chunks are missing from the image store"},
		{images.ErrFull, true, codes.ResourceExhausted, "no space left in the image store"},
		{images.ErrNotFound, false, codes.NotFound, "not in the image store"},
		{context.DeadlineExceeded, true, codes.DeadlineExceeded, "context deadline exceeded: " + maybe},
		{context.DeadlineExceeded, false, codes.DeadlineExceeded, "context deadline exceeded"},
		{context.Canceled, false, codes.Canceled, "context canceled"},
		{fmt.Errorf("open /var/lib/secret: no"), true, codes.Internal, "the server failed; its log says why"},
		{fmt.Errorf("wrapped: %w", status.Error(codes.AlreadyExists, "there")), true, codes.AlreadyExists, "wrapped: rpc error: code = AlreadyExists desc = there"},
	} {
		got := status.Convert(toStatus(row.err, row.changes))
		if got.Code() != row.code || got.Message() != row.text {
			t.Errorf("%v: got %v %q, want %v %q", row.err, got.Code(), got.Message(), row.code, row.text)
		}
	}
}
