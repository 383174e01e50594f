package main

import (
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"google.golang.org/grpc"

	"daybreak/images/sign"
	v1 "daybreak/proto/daybreak/v1"
)

func (a *app) publisherCommand() *cobra.Command {
	key := &cobra.Command{
		Use: "key", Short: "Print the public key with which this control plane signs image versions",
		Long: `The key is printed as PEM, its fingerprint on standard error. Give it to another control plane with 'daybreakd
--trust-publisher-key FILE', so that bundles of this one are taken there, or to a host with 'daybreak-agent --publisher-key FILE',
so that images of this one run there.`,
		Example: "  daybreak publisher key > city-hall.pem", Args: none,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.withConn(func(conn *grpc.ClientConn) error {
				info, err := v1.NewAdminServiceClient(conn).Info(c.Context(), &v1.InfoRequest{})
				if err != nil {
					return err
				}
				if len(info.GetPublisher()) == 0 {
					return errors.New("this control plane takes no images in, so it has no publisher key")
				}
				text, err := sign.PublicPEM(info.GetPublisher())
				if err != nil {
					return err
				}
				fmt.Fprintf(a.errs, "publisher %s\n", sign.Fingerprint(info.GetPublisher()))
				_, err = a.out.Write(text)
				return err
			})
		},
	}
	return group("publisher", "Look at the key that signs image versions", key)
}
