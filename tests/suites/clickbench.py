"""Writes a table like ClickBench's `hits`, its 43 queries and DuckDB's answers: clickbench.py ROWS DIR"""

import pathlib
import re
import sys

import suite

HERE = pathlib.Path(__file__).parent

# Column by column in the order of the original: type and value. `h(n)` is a number that depends on
# the row and n alone, `few(n, k)` one below k of which small ones are frequent.
COLUMNS = """
WatchID BIGINT: h(1)
JavaEnable SMALLINT: few(2, 2)
Title VARCHAR: CASE WHEN h(3) % 9 = 0 THEN '' ELSE 'Page ' || few(3, 4000) || if(h(4) % 12 = 0, ' Google', ' – новости') END
GoodEvent SMALLINT: 1
EventTime TIMESTAMP: moment
EventDate DATE: moment::DATE
CounterID INTEGER: CASE WHEN h(5) % 5 < 2 THEN 62 ELSE few(5, 300) END
ClientIP INTEGER: few(6, 9000) * 65537 - 300000000
RegionID INTEGER: few(7, 500)
UserID BIGINT: CASE WHEN person = 7 THEN 435090932899640449 ELSE hash(person, 8)::HUGEINT::DECIMAL(38, 0) % 9000000000000000000 END
CounterClass SMALLINT: few(9, 3) - 1
OS SMALLINT: few(10, 90)
UserAgent SMALLINT: few(11, 80)
URL VARCHAR: url
Referer VARCHAR: CASE WHEN h(12) % 4 = 0 THEN '' ELSE if(h(13) % 2 = 0, 'http://', 'https://www.') || 'site' || few(13, 25) || '.example/' || few(14, 3000) || if(h(15) % 3 = 0, '?from=google', '') END
IsRefresh SMALLINT: (h(16) % 6 = 0)::INT
RefererCategoryID SMALLINT: few(17, 20)
RefererRegionID INTEGER: few(18, 500)
URLCategoryID SMALLINT: few(19, 20)
URLRegionID INTEGER: few(20, 500)
ResolutionWidth SMALLINT: 800 + few(21, 12) * 160
ResolutionHeight SMALLINT: 600 + few(22, 10) * 120
ResolutionDepth SMALLINT: 24 + few(23, 2) * 8
FlashMajor SMALLINT: few(24, 12)
FlashMinor SMALLINT: few(25, 4)
FlashMinor2 VARCHAR: few(26, 300)::VARCHAR
NetMajor SMALLINT: few(27, 5)
NetMinor SMALLINT: few(28, 5)
UserAgentMajor SMALLINT: few(29, 40)
UserAgentMinor VARCHAR: chr(97 + (h(30) % 26)::INT) || few(30, 9)
CookieEnable SMALLINT: 1
JavascriptEnable SMALLINT: (h(31) % 50 > 0)::INT
IsMobile SMALLINT: (h(32) % 8 = 0)::INT
MobilePhone SMALLINT: if(h(32) % 8 = 0, few(33, 90), 0)
MobilePhoneModel VARCHAR: if(h(32) % 8 = 0, 'Model ' || few(34, 120), '')
Params VARCHAR: ''
IPNetworkID INTEGER: few(35, 4000)
TraficSourceID SMALLINT: few(36, 9) - 1
SearchEngineID SMALLINT: if(h(37) % 3 = 0, few(37, 60), 0)
SearchPhrase VARCHAR: if(h(38) % 4 < 3, '', 'wie ist ' || few(38, 6000) || if(h(39) % 2 = 0, ' ünd', ''))
AdvEngineID SMALLINT: if(h(40) % 30 = 0, few(40, 30), 0)
IsArtifical SMALLINT: 0
WindowClientWidth SMALLINT: h(41) % 1900
WindowClientHeight SMALLINT: h(42) % 1000
ClientTimeZone SMALLINT: few(43, 24) * 60 - 720
ClientEventTime TIMESTAMP: moment + to_seconds(few(44, 7200))
SilverlightVersion1 SMALLINT: few(45, 6)
SilverlightVersion2 SMALLINT: few(46, 2)
SilverlightVersion3 INTEGER: few(47, 60000)
SilverlightVersion4 SMALLINT: 0
PageCharset VARCHAR: if(h(48) % 3 = 0, 'windows-1251', 'utf-8')
CodeVersion INTEGER: few(49, 1600)
IsLink SMALLINT: (h(50) % 3 = 0)::INT
IsDownload SMALLINT: (h(51) % 25 = 0)::INT
IsNotBounce SMALLINT: (h(52) % 2)::INT
FUniqID BIGINT: h(53)
OriginalURL VARCHAR: url
HID INTEGER: h(54) % 1073741824
IsOldCounter SMALLINT: 0
IsEvent SMALLINT: 0
IsParameter SMALLINT: 0
DontCountHits SMALLINT: (h(55) % 7 = 0)::INT
WithHash SMALLINT: 0
HitColor VARCHAR: chr(68 + (h(56) % 3)::INT)
LocalEventTime TIMESTAMP: moment + INTERVAL 3 HOURS
Age SMALLINT: few(57, 60)
Sex SMALLINT: few(58, 3)
Income SMALLINT: few(59, 5)
Interests SMALLINT: few(60, 16000)
Robotness SMALLINT: few(61, 5)
RemoteIP INTEGER: h(62) % 2147483647
WindowName INTEGER: h(63) % 4000 - 2000
OpenerName INTEGER: h(64) % 4000 - 2000
HistoryLength SMALLINT: few(65, 50)
BrowserLanguage VARCHAR: if(h(66) % 4 = 0, 'en', 'ru')
BrowserCountry VARCHAR: chr(65 + (h(67) % 26)::INT) || chr(65 + (h(68) % 26)::INT)
SocialNetwork VARCHAR: if(h(69) % 200 = 0, 'net' || few(69, 5), '')
SocialAction VARCHAR: if(h(69) % 200 = 0, 'like', '')
HTTPError SMALLINT: 0
SendTiming INTEGER: few(70, 3000)
DNSTiming INTEGER: few(71, 300)
ConnectTiming INTEGER: few(72, 300)
ResponseStartTiming INTEGER: few(73, 1000)
ResponseEndTiming INTEGER: few(74, 1000)
FetchTiming INTEGER: few(75, 1000)
SocialSourceNetworkID SMALLINT: few(76, 10)
SocialSourcePage VARCHAR: ''
ParamPrice BIGINT: if(h(77) % 90 = 0, few(77, 100000), 0)
ParamOrderID VARCHAR: if(h(77) % 90 = 0, h(78)::VARCHAR, '')
ParamCurrency VARCHAR: if(h(77) % 90 = 0, 'EUR', 'NHR')
ParamCurrencyID SMALLINT: few(79, 5)
OpenstatServiceName VARCHAR: ''
OpenstatCampaignID VARCHAR: ''
OpenstatAdID VARCHAR: ''
OpenstatSourceID VARCHAR: ''
UTMSource VARCHAR: if(h(80) % 40 = 0, 'source' || few(80, 40), '')
UTMMedium VARCHAR: if(h(80) % 40 = 0, 'cpc', '')
UTMCampaign VARCHAR: if(h(80) % 40 = 0, 'c' || few(81, 400), '')
UTMContent VARCHAR: ''
UTMTerm VARCHAR: ''
FromTag VARCHAR: ''
HasGCLID SMALLINT: (h(82) % 100 = 0)::INT
RefererHash BIGINT: if(h(83) % 10 = 0, 3594120000172545465, h(83))
URLHash BIGINT: if(h(84) % 2 = 0, 2868770270353813622, few(84, 3000))
CLID INTEGER: if(h(85) % 100 = 0, few(85, 1000), 0)
"""

# What several columns are made of.
FREQUENT = """
TIMESTAMP '2013-07-01 00:00:00' + to_seconds(h(100) % 2678400) AS moment,
few(101, 20000) AS person,
CASE WHEN h(102) % 40 = 0 THEN '' ELSE
    'http://' || if(h(103) % 25 = 0, 'www.google.example', 'site' || few(103, 60) || '.example')
    || '/' || few(104, 9000) || if(h(105) % 30 = 0, '?q=google', '') END AS url
"""


def of_row(expressions):
    return re.sub(r"\b(h|few)\(", r"\1(i, ", expressions)


def main(rows, target):
    db = suite.open_duckdb()
    db.execute("CREATE MACRO h(i, n) AS (hash(hash(i, n)) >> 1)::BIGINT")
    db.execute("CREATE MACRO few(i, n, k) AS floor(k * pow((hash(hash(i, n, 0)) % 1000003) / 1000003.0, 3))::INT")
    lines = [line.partition(": ") for line in of_row(COLUMNS).strip().splitlines()]
    columns = [(*head.split(" "), value) for head, _, value in lines]
    # Unquoted names are lower case in PostgreSQL, where the original makes its table so.
    chosen = ", ".join(f"({value})::{kind} AS {name.lower()}" for name, kind, value in columns)
    db.execute(f"""CREATE VIEW drawn AS SELECT {chosen} FROM (SELECT i,
        {of_row(FREQUENT)}
        FROM range({int(rows)}) r(i))""")
    db.execute(f"COPY (SELECT * FROM drawn) TO '{target}/hits.parquet' (ROW_GROUP_SIZE 20480)")
    db.execute(f"CREATE VIEW hits AS SELECT * FROM '{target}/hits.parquet'")
    queries = (HERE / "clickbench.sql").read_text().splitlines()
    suite.write_answers(db, enumerate(queries, 1), target)


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
