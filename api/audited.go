package api

import (
	"context"
	"crypto/sha256"
	"fmt"
	"strings"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"daybreak/api/audit"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
)

// maxAuditText bounds what a request can put into one audit line.
const maxAuditText = 512

// entry is the audit trail of one call.
type entry struct {
	gate    *gate
	method  string
	audited bool
	begun   bool
	record  audit.Record
}

// begin writes the intent. The call must not go on when that fails: a change without a trace is none.
func (e *entry) begin(ctx context.Context, message proto.Message) error {
	if !e.audited || e.begun {
		return nil
	}
	object, note := about(message)
	who := callerOf(ctx)
	e.record = audit.Record{
		Time: time.Now().UTC(), Phase: audit.Intent, Call: uuid.NewString(), Who: who.String(), From: who.address,
		Method: shortMethod(e.method), Object: bounded(object), Note: bounded(note),
	}
	if err := e.gate.audit.Write(e.record); err != nil {
		e.gate.log.Error().Err(err).Msg("audit log cannot be written: changes are refused")
		return status.Error(codes.Unavailable, "the audit log cannot be written, so nothing may be changed: see to the disk of daybreakd's data directory")
	}
	e.begun = true
	return nil
}

type entryKey struct{}

func withEntry(ctx context.Context, e *entry) context.Context {
	return context.WithValue(ctx, entryKey{}, e)
}

// auditNow begins the audit of a call whose rule says late.
func auditNow(ctx context.Context, message proto.Message) error {
	e, ok := ctx.Value(entryKey{}).(*entry)
	if !ok {
		return nil // the service was called by a test, not through the gate
	}
	return e.begin(ctx, message)
}

// end writes the outcome. The change has happened: a failure is logged, not returned.
func (e *entry) end(outcome error) {
	if !e.begun {
		return
	}
	e.record.Time, e.record.Phase, e.record.Code = time.Now().UTC(), audit.Result, status.Code(outcome).String()
	if outcome != nil {
		e.record.Error = bounded(status.Convert(outcome).Message())
	}
	if err := e.gate.audit.Write(e.record); err != nil {
		e.gate.log.Error().Err(err).Interface("record", e.record).Msg("audit log lacks a result")
	}
}

// refused records a call that the caller's role does not allow.
func (g *gate) refused(ctx context.Context, method string, reason error) {
	who := callerOf(ctx)
	record := audit.Record{
		Time: time.Now().UTC(), Phase: audit.Refused, Call: uuid.NewString(), Who: who.String(), From: who.address,
		Method: shortMethod(method), Code: codes.PermissionDenied.String(), Error: bounded(reason.Error()),
	}
	if err := g.audit.Write(record); err != nil {
		g.log.Error().Err(err).Msg("audit log cannot be written")
	}
}

// about says which object a request is about, and what else an auditor wants to know. Never a secret.
func about(message proto.Message) (object, note string) {
	switch m := message.(type) {
	case *v1.ApplyRequest:
		ref := store.RefOf(unwrap(m.GetObject()))
		if m.GetDryRun() {
			note = "dry run"
		}
		return store.KindName(ref.Kind) + "/" + ref.Name, note
	case *v1.DeleteRequest:
		if m.GetData() != v1.DataDisposal_DATA_DISPOSAL_UNSPECIFIED {
			note = "data: " + strings.ToLower(strings.TrimPrefix(m.GetData().String(), "DATA_DISPOSAL_"))
		}
		if m.GetAttestHostOff() {
			note = "attests that the host is off"
		}
		return store.KindName(m.GetKind()) + "/" + m.GetName(), note
	case *v1.KeepRequest:
		return "pool/" + m.GetPool(), fmt.Sprintf("user: %s, busy for %v", m.GetUser(), m.GetBusyFor().AsDuration())
	case interface {
		GetPool() string
		GetUser() string
	}: // claim, wait, release, defer
		return "pool/" + m.GetPool(), "user: " + m.GetUser()
	case *v1.ScreenshotRequest:
		return "desktop/" + m.GetDesktop(), ""
	case *v1.CreateVersionRequest:
		if origin := m.GetHeader().GetOriginImage(); origin != "" {
			note = "out of a bundle of image " + origin
		}
		return "image/" + m.GetHeader().GetImage(), note
	case *v1.GetManifestRequest:
		return "version/" + m.GetDigest(), ""
	case *v1.PublishRequest:
		return "image/" + m.GetImage(), ""
	case *v1.BuildRequest:
		order := m.GetOrder()
		return "image/" + order.GetImage(), strings.ToLower(strings.TrimPrefix(order.GetKind().String(), "BUILD_KIND_")) +
			fmt.Sprintf(" of version %d, script sha256:%x", order.GetVersion(), sha256.Sum256(order.GetScript()))
	case *v1.SealRequest:
		return "image/" + m.GetImage(), ""
	case *v1.StartRolloutRequest:
		return "pool/" + m.GetPool(), ""
	case *v1.RollBackRequest:
		return "pool/" + m.GetPool(), m.GetReason()
	case *v1.PauseRolloutRequest:
		return "pool/" + m.GetPool(), ""
	case *v1.ResumeRolloutRequest:
		return "pool/" + m.GetPool(), ""
	case *v1.CreateTokenRequest:
		return m.GetRole().String() + "/" + m.GetSubject(), ""
	case *v1.DrainHostRequest:
		if !m.GetDrain() {
			note = "undrain"
		}
		return "host/" + m.GetHost(), note
	case *v1.EnrolRequest:
		return m.GetName(), ""
	}
	return "", ""
}

func shortMethod(method string) string {
	return strings.TrimPrefix(method, "/daybreak.v1.")
}

func bounded(text string) string {
	if len(text) <= maxAuditText {
		return text
	}
	return strings.ToValidUTF8(text[:maxAuditText], "")
}
