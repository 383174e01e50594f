package api

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/timestamppb"

	"daybreak/api/pki"
	"daybreak/images/sign"
	"daybreak/orchestrator/calendar"
	"daybreak/orchestrator/pool"
	"daybreak/orchestrator/store"
	v1 "daybreak/proto/daybreak/v1"
	"daybreak/proto/jointoken"
)

const (
	tokenLife = time.Hour
	// maxTokens bounds the tokens that wait to be used.
	maxTokens = 1000
	// maxStaying is the proto's bound of DrainHostResponse.staying.
	maxStaying = 64
)

// Cluster is what the server says of itself and of its cluster.
type Cluster struct {
	// Version of the program.
	Version string
	ID      string
	Epoch   uint64
	// Leader returns the address of the daybreakd that leads, "" when it is not known. May be nil.
	Leader func(context.Context) string
}

func (c Cluster) leader(ctx context.Context) string {
	if c.Leader == nil {
		return ""
	}
	return c.Leader(ctx)
}

// adminService keeps the cluster itself.
type adminService struct {
	v1.UnimplementedAdminServiceServer
	store   *store.Store
	ca      *pki.CA
	cluster Cluster
	// publisher is the public key that versions are signed with; nil when no images are taken in.
	publisher []byte
	// trusted are the publishers whose bundles are taken.
	trusted *sign.Publishers
}

// CreateToken makes a single-use token. The store gets a hash of its secret only.
func (s *adminService) CreateToken(ctx context.Context, request *v1.CreateTokenRequest) (*v1.CreateTokenResponse, error) {
	if request.GetSubject() == "" && request.GetRole() != v1.Role_ROLE_HOST {
		return nil, invalid(mistake{"subject", "is needed: a person's token is for one person"})
	}
	now := time.Now()
	if err := s.sweepTokens(ctx, now); err != nil {
		return nil, err
	}
	life := tokenLife
	if request.GetTtl() != nil {
		life = request.GetTtl().AsDuration()
	}
	token, err := jointoken.New(rand.Reader, s.ca.CertDER())
	if err != nil {
		return nil, err
	}
	expires := timestamppb.New(now.Add(life))
	_, err = s.store.Commit(ctx, store.Create(&v1.JoinToken{
		Meta: &v1.Meta{Name: token.ID}, SecretHash: token.SecretHash(), Expires: expires,
		Role: request.GetRole(), Subject: request.GetSubject(),
	}))
	if err != nil {
		return nil, err
	}
	return &v1.CreateTokenResponse{Token: token.String(), Expires: expires}, nil
}

// sweepTokens removes tokens that nobody can use any more, and refuses when too many are left.
func (s *adminService) sweepTokens(ctx context.Context, now time.Time) error {
	tokens, _, err := store.List[*v1.JoinToken](ctx, s.store)
	if err != nil {
		return err
	}
	left := len(tokens)
	for _, token := range tokens {
		if now.Before(token.GetExpires().AsTime()) {
			continue
		}
		_, err := s.store.Commit(ctx, store.Delete(token))
		if err != nil && !errors.Is(err, store.ErrConflict) && !errors.Is(err, store.ErrNotFound) {
			return err
		}
		left--
	}
	if left >= maxTokens {
		return status.Errorf(codes.ResourceExhausted, "%d tokens wait to be used: delete some (\"daybreak get join_tokens\") or let them expire", left)
	}
	return nil
}

// DrainHost keeps new desktops away from a host, or lets them come again.
func (s *adminService) DrainHost(ctx context.Context, request *v1.DrainHostRequest) (*v1.DrainHostResponse, error) {
	_, err := store.Modify(ctx, s.store, request.GetHost(), func(host *v1.Host) error {
		if host.Spec == nil {
			host.Spec = &v1.HostSpec{}
		}
		host.Spec.Unschedulable = request.GetDrain()
		return nil
	})
	if err != nil {
		return nil, err
	}
	desktops, _, err := store.List[*v1.Desktop](ctx, s.store)
	if err != nil {
		return nil, err
	}
	response := &v1.DrainHostResponse{}
	for _, desktop := range desktops {
		if desktop.GetIncarnation().GetHost() != request.GetHost() {
			continue
		}
		response.Desktops++
		if !request.GetDrain() || len(response.Staying) == maxStaying {
			continue
		}
		owner, err := store.Get[*v1.Pool](ctx, s.store, desktop.GetSpec().GetPool())
		if err != nil && !errors.Is(err, store.ErrNotFound) {
			return nil, err
		}
		zone, err := s.clockOf(ctx, owner)
		if err != nil {
			return nil, err
		}
		if why := pool.Staying(time.Now(), zone, owner, desktop); why != "" {
			response.Staying = append(response.Staying, desktop.GetMeta().GetName()+": "+why)
		}
	}
	return response, nil
}

// clockOf returns the time zone of the people who use a pool.
func (s *adminService) clockOf(ctx context.Context, owner *v1.Pool) (*time.Location, error) {
	if owner.GetSpec().GetCalendar() == "" {
		return calendar.ClockOf(owner, nil), nil
	}
	followed, err := store.Get[*v1.Calendar](ctx, s.store, owner.GetSpec().GetCalendar())
	if err != nil && !errors.Is(err, store.ErrNotFound) {
		return nil, err
	}
	return calendar.ClockOf(owner, followed), nil
}

// Info says who is asked and who asks.
func (s *adminService) Info(ctx context.Context, _ *v1.InfoRequest) (*v1.InfoResponse, error) {
	_, revision, err := s.store.List(ctx, v1.Kind_KIND_ZONE)
	if err != nil {
		return nil, err
	}
	who := callerOf(ctx)
	var trusted [][]byte
	for _, key := range s.trusted.Keys() {
		trusted = append(trusted, key)
	}
	return &v1.InfoResponse{
		Version: s.cluster.Version, ClusterId: s.cluster.ID, ClusterEpoch: s.cluster.Epoch, Leader: s.cluster.leader(ctx),
		Caller: who.Name, Role: who.Role, Revision: revision, Publisher: s.publisher,
		TrustedPublishers: trusted,
	}, nil
}
