package api

import (
	"context"
	"errors"
	"time"

	"github.com/google/uuid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/api/pki"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/jointoken"
)

const newToken = "make a new one with \"daybreak token create\""

// enrolService gives out certificates.
type enrolService struct {
	v1.UnimplementedEnrolServiceServer
	store *store.Store
	ca    *pki.CA
	// publishers are the keys that hosts pin when they enrol.
	publishers [][]byte
}

// Enrol trades a token for a certificate. The token is removed in the transaction that admits the newcomer, so of two
// who hold the same token one gets in; and an answer that is lost on its way back costs the token.
func (s *enrolService) Enrol(ctx context.Context, request *v1.EnrolRequest) (*v1.EnrolResponse, error) {
	token, err := jointoken.Parse(request.GetToken())
	if err != nil {
		return nil, status.Errorf(codes.Unauthenticated, "the token cannot be used: %v", err)
	}
	for attempt := 1; ; attempt++ {
		response, err := s.enrol(ctx, token, request)
		if attempt == attempts || !retryable(err) {
			return response, err
		}
	}
}

func (s *enrolService) enrol(ctx context.Context, token jointoken.Token, request *v1.EnrolRequest) (*v1.EnrolResponse, error) {
	now := time.Now()
	stored, err := s.admit(ctx, token, request.GetName(), now)
	if err != nil {
		return nil, err
	}
	if err := auditNow(ctx, request); err != nil {
		return nil, err
	}
	id := pki.Identity{Name: request.GetName(), Role: stored.GetRole()}
	ops := []store.Op{store.Delete(stored)}
	if id.IsHost() {
		uid, op, err := s.hostOp(ctx, stored, id.Name)
		if err != nil {
			return nil, err
		}
		id.HostUID, ops = uid, append(ops, op)
	}
	response, err := s.issue(id, request.GetCsr(), now)
	if err != nil {
		return nil, err
	}
	switch _, err := s.store.Commit(ctx, ops...); {
	case errors.Is(err, store.ErrUnknownOutcome):
		return nil, status.Errorf(codes.Unknown, "the token may or may not be used up: try it once more, then %s", newToken)
	case err != nil:
		return nil, err
	}
	return response, nil
}

// admit finds the stored half of the token and checks that it is good for that name now. Somebody who does not hold the
// secret learns nothing.
func (s *enrolService) admit(ctx context.Context, token jointoken.Token, name string, now time.Time) (*v1.JoinToken, error) {
	stored, err := store.Get[*v1.JoinToken](ctx, s.store, token.ID)
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	if err != nil || !token.Matches(stored.GetSecretHash()) {
		return nil, status.Error(codes.Unauthenticated, "the token is unknown or was used: each can be used once; "+newToken)
	}
	if until := stored.GetExpires().AsTime(); !now.Before(until) {
		return nil, status.Errorf(codes.Unauthenticated, "the token expired at %s: %s", until.UTC().Format("2006-01-02 15:04:05 MST"), newToken)
	}
	if subject := stored.GetSubject(); subject != "" && subject != name {
		return nil, status.Errorf(codes.Unauthenticated, "the token is for %q, not for %q: %s", subject, name, newToken)
	}
	return stored, nil
}

// hostOp makes the Host object of a newcomer. A host that exists keeps its own, and only a token that names it admits
// it: otherwise whoever holds any host token could take any host's place.
func (s *enrolService) hostOp(ctx context.Context, token *v1.JoinToken, name string) (uid string, op store.Op, err error) {
	host, err := store.Get[*v1.Host](ctx, s.store, name)
	switch {
	case errors.Is(err, store.ErrNotFound):
		uid = uuid.NewString()
		return uid, store.Create(&v1.Host{Meta: &v1.Meta{Name: name, Uid: uid}, Spec: &v1.HostSpec{}}), nil
	case err != nil:
		return "", store.Op{}, err
	case token.GetSubject() == "":
		return "", store.Op{}, status.Errorf(codes.AlreadyExists, "host %s exists already: to enrol it again, make a token for it with \"daybreak token create --host %s\"", name, name)
	}
	return host.GetMeta().GetUid(), store.Check(host), nil
}

// Renew trades a certificate that is still good for a newer one.
func (s *enrolService) Renew(ctx context.Context, request *v1.RenewRequest) (*v1.EnrolResponse, error) {
	return s.issue(callerOf(ctx).Identity, request.GetCsr(), time.Now())
}

func (s *enrolService) issue(id pki.Identity, csr []byte, now time.Time) (*v1.EnrolResponse, error) {
	certificate, expires, err := s.ca.IssueClient(id, csr, now)
	if err != nil {
		return nil, err
	}
	return &v1.EnrolResponse{
		Certificate: certificate, Ca: [][]byte{s.ca.CertDER()}, Expires: timestamppb.New(expires), Publishers: s.publishers,
	}, nil
}
