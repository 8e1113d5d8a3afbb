/** What others do to a WAN and to the gateway's machine, under streams and new connections. */
import { testScenarios } from '../support/scenarios.js'

testScenarios('renumber', 'firewall-reload', 'strip-mptcp', 'block-mptcp')
