// pgjdbc at a door with TLS: Doors.java HOST PORT PASSWORD DIRECTORY
import java.sql.*;
import java.util.Properties;

public class Doors {
    static String[] arguments;

    static String logIn(String user, String password, String name) throws Exception {
        String directory = arguments[3];
        Properties properties = new Properties();
        properties.setProperty("user", user);
        properties.setProperty("password", password);
        properties.setProperty("sslmode", "verify-full");
        properties.setProperty("sslrootcert", directory + "/ca.pem");
        if (name != null) {
            properties.setProperty("sslcert", directory + "/" + name + ".pem");
            properties.setProperty("sslkey", directory + "/" + name + ".pk8");
        }
        String url = "jdbc:postgresql://" + arguments[0] + ":" + arguments[1] + "/oribi";
        try (Connection connection = DriverManager.getConnection(url, properties);
             ResultSet rows = connection.createStatement().executeQuery("SELECT session_user")) {
            if (!rows.next()) throw new AssertionError("no row");
            return rows.getString(1);
        }
    }

    static void refused(String state, String user, String password, String name) throws Exception {
        try {
            logIn(user, password, name);
        } catch (SQLException error) {
            if (error.getSQLState().equals(state)) return;
            throw error;
        }
        throw new AssertionError(user + " came in");
    }

    public static void main(String[] all) throws Exception {
        arguments = all;
        if (!logIn("alice", arguments[2], null).equals("alice")) throw new AssertionError();
        if (!logIn("certain", "", "certain").equals("certain")) throw new AssertionError();
        refused("28P01", "alice", "wrong", null);
        refused("28000", "certain", "", "moved");
    }
}
