// SPDX-License-Identifier: Apache-2.0

// Package v20170312 stands in for Tencent's SDK, which the module proxy does not serve in the version that flannel wants. It has
// what flannel's tencent-vpc backend names, so that flanneld compiles; every call fails. No test uses that backend.
package v20170312

import "errors"

var errAbsent = errors.New("built without the SDK of tencent-vpc")

type Client struct{}

type Filter struct {
	Name   *string
	Values []*string
}

type Route struct {
	DestinationCidrBlock, GatewayType, GatewayId, RouteType *string
	RouteId                                                 *uint64
	Enabled                                                 *bool
}

type RouteTable struct {
	RouteTableId *string
	RouteSet     []*Route
}

type DescribeRouteTablesRequest struct{ Filters []*Filter }

type DescribeRouteTablesResponse struct {
	Response *struct{ RouteTableSet []*RouteTable }
}

type routesRequest struct {
	RouteTableId *string
	Routes       []*Route
}

type CreateRoutesRequest routesRequest

type DeleteRoutesRequest routesRequest

type Response struct{}

func NewClientWithSecretId(id, key, region string) (*Client, error) { return &Client{}, nil }

func NewDescribeRouteTablesRequest() *DescribeRouteTablesRequest {
	return &DescribeRouteTablesRequest{}
}

func NewCreateRoutesRequest() *CreateRoutesRequest { return &CreateRoutesRequest{} }

func NewDeleteRoutesRequest() *DeleteRoutesRequest { return &DeleteRoutesRequest{} }

func (c *Client) DescribeRouteTables(*DescribeRouteTablesRequest) (*DescribeRouteTablesResponse, error) {
	return nil, errAbsent
}

func (c *Client) CreateRoutes(*CreateRoutesRequest) (*Response, error) { return nil, errAbsent }

func (c *Client) DeleteRoutes(*DeleteRoutesRequest) (*Response, error) { return nil, errAbsent }
