import java.io.*;
import java.math.BigDecimal;
import java.sql.*;
import java.util.*;
import org.postgresql.PGConnection;
import org.postgresql.copy.*;

/** PostgreSQL's JDBC driver: java -cp postgresql.jar Jdbc.java HOST PORT */
public class Jdbc {
    static void check(boolean holds, Object what) {
        if (!holds) throw new AssertionError(what);
    }

    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        while (rows.next()) values.add(rows.getString(name));
        return values;
    }

    static void metadata(Connection connection) throws SQLException {
        DatabaseMetaData about = connection.getMetaData();
        check(about.getDatabaseProductName().equals("PostgreSQL"), about.getDatabaseProductName());
        check(about.getDatabaseMajorVersion() == 15, about.getDatabaseProductVersion());
        check(column(about.getSchemas(), "TABLE_SCHEM").contains("public"), "getSchemas");
        check(column(about.getCatalogs(), "TABLE_CAT").contains("oribi"), "getCatalogs");
        List<String> tables =
            column(about.getTables(null, "public", "%", new String[] {"TABLE"}), "TABLE_NAME");
        check(tables.equals(List.of("people")), tables);
        List<String> views =
            column(about.getTables(null, null, "t%", new String[] {"VIEW"}), "TABLE_NAME");
        check(views.contains("tall"), views);
        List<String> columns = column(about.getColumns(null, null, "people", "%"), "COLUMN_NAME");
        check(columns.equals(List.of("id", "name", "born", "height", "member")), columns);
        ResultSet height = about.getColumns(null, "public", "people", "height");
        check(height.next() && height.getInt("DATA_TYPE") == Types.NUMERIC, "type of height");
        check(height.getInt("COLUMN_SIZE") == 4 && height.getInt("DECIMAL_DIGITS") == 2, "scale");
        check(column(about.getPrimaryKeys(null, null, "people"), "COLUMN_NAME").isEmpty(), "keys");
        check(!about.getIndexInfo(null, null, "people", false, false).next(), "getIndexInfo");
        check(!about.getImportedKeys(null, null, "people").next(), "getImportedKeys");
        check(about.getTypeInfo().next(), "getTypeInfo");
        check(about.getTableTypes().next(), "getTableTypes");
        about.getFunctions(null, null, "upper").close();
        about.getProcedures(null, null, "%").close();
    }

    /** Calls that tools make before they show anything; most have nothing to tell. */
    static void everything(Connection connection) throws SQLException {
        DatabaseMetaData about = connection.getMetaData();
        List<ResultSet> answers = List.of(
            about.getTablePrivileges(null, null, "people"),
            about.getColumnPrivileges(null, null, "people", "%"),
            about.getExportedKeys(null, null, "people"),
            about.getCrossReference(null, null, "people", null, null, "tall"),
            about.getBestRowIdentifier(null, null, "people", DatabaseMetaData.bestRowSession, true),
            about.getVersionColumns(null, null, "people"),
            about.getUDTs(null, null, "%", null),
            about.getFunctionColumns(null, null, "upper", "%"),
            about.getProcedureColumns(null, null, "upper", "%"),
            about.getSchemas(null, "pub%"),
            about.getTables("oribi", null, null, null),
            about.getColumns("oribi", null, null, null),
            about.getClientInfoProperties());
        for (ResultSet answer : answers) {
            while (answer.next()) {
                int columns = answer.getMetaData().getColumnCount();
                for (int column = 1; column <= columns; column++) answer.getObject(column);
            }
        }
        check(about.getMaxColumnNameLength() == 63, about.getMaxColumnNameLength());
        check(about.getSQLKeywords().contains("ilike"), about.getSQLKeywords());
        check(about.getUserName().equals("oribi"), about.getUserName());
        check(!about.isReadOnly(), "isReadOnly");
        check(about.getDefaultTransactionIsolation() == Connection.TRANSACTION_READ_COMMITTED,
            about.getDefaultTransactionIsolation());
        check(connection.getSchema().equals("public"), connection.getSchema());
        try (Statement statement = connection.createStatement()) {
            ResultSetMetaData columns =
                statement.executeQuery("SELECT id AS key, height FROM people").getMetaData();
            check(columns.getColumnLabel(1).equals("key"), columns.getColumnLabel(1));
            check(columns.getPrecision(2) == 4 && columns.getScale(2) == 2, "numeric(4,2)");
        }
    }

    static void prepared(Connection connection) throws SQLException {
        String sql = "SELECT id, name, born, height, member FROM people WHERE id = ?";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            check(statement.getParameterMetaData().getParameterType(1) == Types.INTEGER, "type");
            check(statement.getMetaData().getColumnCount() == 5, "columns");
            // After five times the driver prepares on the server and asks for binary values.
            for (int time = 0; time < 8; time++) {
                statement.setInt(1, 1 + time % 2);
                ResultSet rows = statement.executeQuery();
                check(rows.next(), "no row");
                check(rows.getString("name").equals(time % 2 == 0 ? "Ann" : "Bob"), time);
                check(rows.getBigDecimal("height").scale() == 2, rows.getBigDecimal("height"));
                check(rows.getDate("born") != null, "born");
                check(rows.getBoolean("member") == (time % 2 == 0), "member");
            }
        }
        sql = "SELECT ?::bigint, ?::text, ?::numeric, ?::date, ?::timestamp, ?::boolean, ?::float8";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            for (int time = 0; time < 8; time++) {
                statement.setLong(1, 1L << 40);
                statement.setString(2, "it's ☃");
                statement.setBigDecimal(3, new BigDecimal("12.5"));
                statement.setDate(4, java.sql.Date.valueOf("2024-02-29"));
                statement.setTimestamp(5, Timestamp.valueOf("2024-02-29 01:02:03.004"));
                statement.setBoolean(6, true);
                statement.setNull(7, Types.DOUBLE);
                ResultSet rows = statement.executeQuery();
                check(rows.next() && rows.getLong(1) == 1L << 40, "bigint");
                check(rows.getString(2).equals("it's ☃"), rows.getString(2));
                check(rows.getBigDecimal(3).compareTo(new BigDecimal("12.5")) == 0, "numeric");
                check(rows.getDate(4).equals(java.sql.Date.valueOf("2024-02-29")), "date");
                check(rows.getTimestamp(5).equals(Timestamp.valueOf("2024-02-29 01:02:03.004")),
                    rows.getTimestamp(5));
                check(rows.getBoolean(6), "boolean");
                check(rows.getObject(7) == null && rows.wasNull(), "null");
            }
        }
        sql = "SELECT count(*) FROM people WHERE id = ANY (?)";
        try (PreparedStatement statement = connection.prepareStatement(sql)) {
            statement.setArray(1, connection.createArrayOf("int4", new Integer[] {1, 2, 9}));
            ResultSet rows = statement.executeQuery();
            check(rows.next() && rows.getInt(1) == 2, "array");
        }
        try (Statement statement = connection.createStatement()) {
            ResultSet rows = statement.executeQuery("SELECT ARRAY[1, 2, NULL]");
            check(rows.next(), "no row");
            Object[] values = (Object[]) rows.getArray(1).getArray();
            check(values.length == 3 && values[2] == null, Arrays.toString(values));
        }
    }

    /** With autocommit off the driver fetches through a portal, so many rows at a time. */
    static void fetched(Connection connection) throws SQLException {
        connection.setAutoCommit(false);
        try (Statement statement = connection.createStatement()) {
            statement.setFetchSize(100);
            ResultSet rows = statement.executeQuery("SELECT * FROM generate_series(1, 10050)");
            long sum = 0;
            while (rows.next()) sum += rows.getLong(1);
            check(sum == 10050L * 10051 / 2, sum);
            rows = statement.executeQuery("SELECT * FROM generate_series(1, 1000000000)");
            for (int row = 1; row <= 250; row++) check(rows.next() && rows.getLong(1) == row, row);
            rows.close();
        }
        connection.commit();
        try (Statement statement = connection.createStatement()) {
            statement.execute("SELECT 1 / 0");
            throw new AssertionError("no error");
        } catch (SQLException error) {
            check(error.getSQLState().equals("22012"), error.getSQLState());
        }
        try (Statement statement = connection.createStatement()) {
            statement.execute("SELECT 1");
            throw new AssertionError("no error");
        } catch (SQLException error) {
            check(error.getSQLState().equals("25P02"), error.getSQLState());
        }
        connection.rollback();
        connection.setAutoCommit(true);
    }

    /** The keys that the server has made, which the driver asks for with RETURNING. */
    static void keys(Connection connection) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.execute("CREATE SCHEMA jdbc_written");
            statement.execute("CREATE TABLE jdbc_written.t (id int DEFAULT 7, name text)");
            statement.executeUpdate("INSERT INTO jdbc_written.t (name) VALUES ('a')",
                Statement.RETURN_GENERATED_KEYS);
            ResultSet keys = statement.getGeneratedKeys();
            check(keys.next() && keys.getInt("id") == 7 && !keys.next(), "RETURN_GENERATED_KEYS");
        }
        String sql = "INSERT INTO jdbc_written.t (name) VALUES (?)";
        try (PreparedStatement insert = connection.prepareStatement(sql, new String[] {"id"})) {
            for (int time = 0; time < 8; time++) {
                insert.setString(1, "b" + time);
                check(insert.executeUpdate() == 1, "one row");
                ResultSet keys = insert.getGeneratedKeys();
                check(keys.next() && keys.getInt(1) == 7, time);
            }
            insert.setString(1, "c");
            insert.addBatch();
            insert.setString(1, "d");
            insert.addBatch();
            check(Arrays.equals(insert.executeBatch(), new int[] {1, 1}), "a batch");
            check(column(insert.getGeneratedKeys(), "id").equals(List.of("7", "7")), "its keys");
        }
        try (Statement statement = connection.createStatement()) {
            ResultSet rows = statement.executeQuery("DELETE FROM jdbc_written.t RETURNING name");
            check(column(rows, "name").size() == 11, "DELETE with RETURNING as a query");
            statement.execute("DROP TABLE jdbc_written.t PURGE");
            statement.execute("DROP SCHEMA jdbc_written");
        }
    }

    static void copied(Connection connection) throws Exception {
        CopyManager copies = connection.unwrap(PGConnection.class).getCopyAPI();
        ByteArrayOutputStream out = new ByteArrayOutputStream();
        String sql = "COPY (SELECT name, id FROM people ORDER BY id) TO STDOUT (FORMAT csv, HEADER)";
        check(copies.copyOut(sql, out) == 3, "rows");
        check(out.toString("UTF-8").equals("name,id\nAnn,1\nBob,2\n\"Zoë, Dr.\",3\n"), out);
        try {
            copies.copyIn("COPY people FROM STDIN", new ByteArrayInputStream(new byte[0]));
            throw new AssertionError("no error");
        } catch (SQLException error) {
            check(error.getSQLState().equals("0A000"), error.getSQLState());
        }
        check(connection.isValid(10), "after a copy that was refused");
    }

    /** Rows into a table; what fails leaves nothing. */
    static void copiedIn(Connection connection) throws Exception {
        CopyManager copies = connection.unwrap(PGConnection.class).getCopyAPI();
        try (Statement statement = connection.createStatement()) {
            statement.execute("CREATE SCHEMA jdbc_copied");
            statement.execute("CREATE TABLE jdbc_copied.t (id int, name text)");
            String text = "1\tone\n2\t\\N\n";
            long rows = copies.copyIn("COPY jdbc_copied.t FROM STDIN", new StringReader(text));
            check(rows == 2, rows);
            byte[] csv = "name;id\n\"Zoë; Dr.\";3\n".getBytes("UTF-8");
            rows = copies.copyIn("COPY jdbc_copied.t (name, id) FROM STDIN (FORMAT csv, HEADER, "
                + "DELIMITER ';')", new ByteArrayInputStream(csv), 5);
            check(rows == 1, rows);
            CopyIn cancelled = copies.copyIn("COPY jdbc_copied.t FROM STDIN");
            cancelled.writeToCopy("4\tfour\n".getBytes(), 0, 7);
            cancelled.cancelCopy();
            try {
                copies.copyIn("COPY jdbc_copied.t FROM STDIN", new StringReader("5\tfive\nsix\n"));
                throw new AssertionError("no error");
            } catch (SQLException error) {
                check(error.getSQLState().equals("22P02"), error.getSQLState());
                check(error.getMessage().contains("COPY t, line 2, column id: \"six\""),
                    error.getMessage());
            }
            connection.setAutoCommit(false);
            copies.copyIn("COPY jdbc_copied.t FROM STDIN", new StringReader("6\tsix\n"));
            connection.rollback();
            connection.setAutoCommit(true);
            String all = "SELECT id || ' ' || coalesce(name, '-') AS x FROM jdbc_copied.t ORDER BY id";
            List<String> found = column(statement.executeQuery(all), "x");
            check(found.equals(List.of("1 one", "2 -", "3 Zoë; Dr.")), found);
            statement.execute("DROP TABLE jdbc_copied.t PURGE");
            statement.execute("DROP SCHEMA jdbc_copied");
        }
    }

    static void stopped(Connection connection, boolean limits) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.setQueryTimeout(1);
            statement.executeQuery("SELECT count(*) FROM generate_series(1, 1000000000000)");
            throw new AssertionError("no error");
        } catch (SQLException error) {
            check(error.getSQLState().equals("57014"), error.getSQLState());
        }
        try (Statement statement = connection.createStatement()) {
            statement.setMaxRows(5);
            ResultSet rows = statement.executeQuery("SELECT * FROM generate_series(1, 100) t (n)");
            // The simple protocol has no limits.
            check(column(rows, "n").size() == (limits ? 5 : 100), "setMaxRows");
            check(statement.execute("SELECT 1; SELECT 2"), "several statements");
            check(statement.getMoreResults(), "the second result");
        }
        check(connection.isValid(10), "isValid");
    }

    public static void main(String[] arguments) throws Exception {
        String url = "jdbc:postgresql://" + arguments[0] + ":" + arguments[1] + "/oribi";
        for (String mode : List.of("extended", "simple", "extendedForPrepared")) {
            Properties properties = new Properties();
            properties.setProperty("user", "oribi");
            properties.setProperty("preferQueryMode", mode);
            try (Connection connection = DriverManager.getConnection(url, properties)) {
                metadata(connection);
                everything(connection);
                if (!mode.equals("simple")) {
                    prepared(connection);
                }
                // Elsewhere the driver takes all rows at once.
                if (mode.equals("extended")) fetched(connection);
                keys(connection);
                copied(connection);
                copiedIn(connection);
                stopped(connection, mode.equals("extended"));
                connection.setReadOnly(true);
                check(connection.getTransactionIsolation() == Connection.TRANSACTION_READ_COMMITTED,
                    "isolation");
            } catch (Throwable failure) {
                throw new AssertionError("query mode " + mode, failure);
            }
        }
    }
}
